"""Train or test a re-identification network.

python main.py -c configs/x.yml [KEY VALUE ...]            train, then evaluate
python main.py -c configs/x.yml --resume [KEY VALUE ...]   go on from OUTPUT_DIR/checkpoints/last.pt
python main.py -t TEST.WEIGHT FILE [KEY VALUE ...]         test a checkpoint of ours; its recipe is in it
python main.py -t -c configs/x.yml TEST.WEIGHT FILE        test any weight file
"""

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.config import Config, join_negative_values, load_config
from ember_reid.data.build import (
    build_augmentation,
    build_splits,
    build_train_loader,
    loader_processes,
)
from ember_reid.data.images import num_cpus
from ember_reid.engine.build import (
    attach_handlers,
    build_amp_dtype,
    build_average,
    build_benchmarks,
    build_criterion,
    build_device,
    build_sinks,
    build_trained_model,
    build_trainer,
    read_test_config,
)
from ember_reid.engine.distill.build import build_distillation, compare_with_teachers
from ember_reid.engine.environment import describe_making, record_start
from ember_reid.engine.handlers.checkpoints import resume_engine
from ember_reid.engine.handlers.evaluation import score
from ember_reid.engine.handlers.logs import Sink, setup_logging
from ember_reid.engine.handlers.safety import Interrupted, describe_error, explain_failure
from ember_reid.engine.scores import describe_transfer
from ember_reid.modeling import build_model, check_model
from ember_reid.solver import build_optimizers, build_schedule
from torch.multiprocessing.spawn import ProcessExitedException

import ember_reid

logger = logging.getLogger("ember.main")
USER_ERROR = 2  # exit code
RUN_FILES = (
    "log.txt",
    "metrics.jsonl",
    "made_with.json",
    "results.json",
    "distillation.json",
    "report.html",
    "visdom.jsonl",
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="main.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-c", "--config", metavar="RECIPE", help="a recipe: a file, or the name of one in configs/"
    )
    parser.add_argument(
        "-t", "--test", action="store_true", help="test TEST.WEIGHT instead of training"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUTPUT_DIR/checkpoints/last.pt"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="any key of config/defaults.py"
    )
    return parser.parse_intermixed_args(
        join_negative_values(sys.argv[1:] if argv is None else argv)
    )


def read_config(args: argparse.Namespace) -> Config:
    """The configuration of a recipe; in a test without one, that of the checkpoint."""
    if args.test:
        return read_test_config(args.config, args.overrides)
    return load_config(args.config, args.overrides)


def seed_everything(cfg: Config) -> None:
    """The one place that seeds, before anything is built; iterations are seeded by engine.handlers.batch.Seeder.

    The number of threads and the choice of kernels belong here: they decide the last bits of a sum.
    """
    torch.manual_seed(cfg.SEED)
    num_processes = idist.get_nproc_per_node()
    if cfg.NUM_THREADS or num_processes > 1:
        torch.set_num_threads(cfg.NUM_THREADS or max(1, num_cpus() // num_processes))
    if cfg.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not cfg.DETERMINISTIC


def is_restarted(cfg: Config) -> bool:
    """Whether torchrun (--max-restarts) starts this very run anew after a failure: it goes on without being told."""
    config = Path(cfg.OUTPUT_DIR) / "config.yml"
    has_failed = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return has_failed and config.is_file() and config.read_text(encoding="utf-8") == cfg.dump()


def check_output_folder(cfg: Config, *, resume: bool, restarted: bool = False) -> None:
    """Refuse to write over a run that is there."""
    folder = Path(cfg.OUTPUT_DIR)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"OUTPUT_DIR {folder} is a file; name a folder")
    held = [
        name
        for name in ("checkpoints", "results.json", "metrics.jsonl")
        if (folder / name).exists()
    ]
    if held and not (resume or restarted or cfg.OVERWRITE):
        raise ValueError(
            f"OUTPUT_DIR {folder} already holds a run ({', '.join(held)}): go on with --resume, replace it with "
            "OVERWRITE True, or choose another OUTPUT_DIR"
        )
    if resume and not (folder / "checkpoints" / "last.pt").is_file():
        raise FileNotFoundError(
            f"--resume: there is no {folder / 'checkpoints' / 'last.pt'}; start without --resume"
        )


def prepare_output_folder(cfg: Config, *, resume: bool) -> None:
    """Make the folder and its `config.yml`; a new run takes away what the old one wrote, and nothing else."""
    folder = Path(cfg.OUTPUT_DIR)
    for unfinished in (folder / "checkpoints").glob(
        ".*.tmp"
    ):  # left by a run that was killed while it saved
        unfinished.unlink(missing_ok=True)
    if not resume:
        for name in ("checkpoints", "tensorboard"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(cfg.dump(), encoding="utf-8")


def write_results(cfg: Config, results: dict[str, dict]) -> None:
    if idist.get_rank() == 0:
        path = Path(cfg.OUTPUT_DIR) / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        for line in describe_transfer(cfg.DATASETS.NAMES, results):
            logger.info(line)
        logger.info("results: %s", path)


def write_report(folder: Path) -> None:
    """OUTPUT_DIR/report.html by tools.report, in a process of its own: if it fails, the run's results stand all the same."""
    packages = str(Path(ember_reid.__file__).resolve().parents[1])
    # Not `-m`: that would search the current directory, which may contain a package of the same name.
    program = "import sys; sys.path[0] = sys.argv.pop(1); from ember_reid.tools.report import main; sys.exit(main())"
    command = [sys.executable, "-c", program, packages, str(folder)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        logger.warning("the report was not written; try again: python -m tools.report %s", folder)
    else:
        logger.info("report: %s", folder / "report.html")


def run(local_rank: int, cfg: Config, *, resume: bool) -> None:
    """Train on one process of possibly many, then evaluate. Nothing is written before everything was checked."""
    rank, world_size = idist.get_rank(), idist.get_world_size()
    setup_logging(quiet=rank > 0)
    device = build_device(cfg)
    restarted = is_restarted(cfg)
    resume = resume or restarted and (Path(cfg.OUTPUT_DIR) / "checkpoints" / "last.pt").is_file()
    check_output_folder(cfg, resume=resume, restarted=restarted)
    seed_everything(cfg)

    check_model(cfg)
    corpus = build_splits(cfg)
    model = build_model(cfg, num_classes=corpus.num_classes, pretrained=not resume)
    model = model.to(device, memory_format=torch.channels_last)
    distillation = build_distillation(
        cfg,
        model,
        classes=corpus.classes,
        records=corpus.train,
        device=device,
        amp_dtype=build_amp_dtype(cfg, device),
    )
    criterion = build_criterion(
        cfg, num_classes=corpus.num_classes, feature_dim=model.head.dim, extra=distillation.terms
    ).to(device)
    optimizers = build_optimizers(cfg, model, criterion)
    train_loader = build_train_loader(
        cfg, corpus.train, rank=rank, world_size=world_size, device=device
    )
    average = build_average(cfg, model)
    benchmarks = build_benchmarks(cfg, corpus.validation | corpus.tests, average.model, device)
    schedule = build_schedule(cfg, len(train_loader))
    trainer, scaler = build_trainer(cfg, model, criterion, optimizers, device=device)
    making = describe_making(device)
    sinks: list[Sink] = []  # filled below, when nothing can be wrong any more
    checkpoints, evaluation, stop = attach_handlers(
        cfg,
        trainer,
        device=device,
        model=model,
        average=average,
        criterion=criterion,
        optimizers=optimizers,
        scaler=scaler,
        schedule=schedule,
        augmentation=build_augmentation(cfg),
        train_loader=train_loader,
        train_records=corpus.train,
        benchmarks=benchmarks,
        sinks=sinks,
        description={
            "config": cfg.dump(),
            "num_classes": corpus.num_classes,
            "classes": [list(c) for c in corpus.classes],
            "made_with": making,
        },
        distillation=distillation,
    )
    progress = checkpoints.restore() if resume else {}
    if resume:
        resume_engine(trainer, progress, train_loader, max_epochs=cfg.SOLVER.MAX_EPOCHS)

    idist.barrier()  # every rank has passed its checks
    if rank == 0:
        prepare_output_folder(cfg, resume=resume)
        setup_logging(Path(cfg.OUTPUT_DIR) / "log.txt")
        record_start(
            Path(cfg.OUTPUT_DIR) / "made_with.json", making, iteration=trainer.state.iteration
        )
    idist.barrier()
    sinks += build_sinks(cfg, resumed_iteration=progress.get("iteration"))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "%s on %s, %d process(es): %.2f M parameters, %d identities, %d images, %d iterations an epoch",
        cfg.MODEL.BACKBONE.NAME,
        device,
        world_size,
        num_parameters / 1e6,
        corpus.num_classes,
        len(corpus.train),
        len(train_loader),
    )
    logger.info("made with %s", ", ".join(f"{name} {value}" for name, value in making.items()))
    if resume:
        logger.info(
            "resumed after epoch %d, iteration %d", trainer.state.epoch, trainer.state.iteration
        )
    with stop, loader_processes(train_loader):
        if trainer.state.iteration < cfg.SOLVER.MAX_EPOCHS * len(train_loader):
            trainer.run(
                train_loader, max_epochs=cfg.SOLVER.MAX_EPOCHS, epoch_length=len(train_loader)
            )
        elif evaluation.catch_up(trainer):
            checkpoints.save(trainer)
        results = evaluation.final_results or score(benchmarks)
        write_results(cfg, results)
        compare_with_teachers(
            cfg, distillation, average.model, tests=corpus.tests, results=results, device=device
        )
    if cfg.LOG.REPORT and rank == 0:
        write_report(Path(cfg.OUTPUT_DIR))


def test(local_rank: int, cfg: Config) -> None:
    """Score TEST.WEIGHT on the test sets."""
    rank = idist.get_rank()
    setup_logging(quiet=rank > 0)
    device = build_device(cfg)
    seed_everything(cfg)
    tests = build_splits(cfg, train=False).tests
    model = build_trained_model(cfg, device)
    benchmarks = build_benchmarks(cfg, tests, model, device)
    write_results(cfg, score(benchmarks))


def execute(local_rank: int, cfg: Config, args: argparse.Namespace) -> None:
    """Train or test in this process."""
    try:
        test(local_rank, cfg) if args.test else run(local_rank, cfg, resume=args.resume)
    except (RuntimeError, MemoryError) as error:
        height, width = cfg.INPUT.SIZE_TRAIN
        images = cfg.SOLVER.IMS_PER_BATCH // idist.get_world_size() // cfg.SOLVER.ACCUMULATION_STEPS
        clips = f" x {cfg.INPUT.NUM_FRAMES} frames" if cfg.INPUT.NUM_FRAMES > 1 else ""
        load = f"{cfg.MODEL.BACKBONE.NAME} and {images} images{clips} of {height}x{width} at a time"
        explanation = explain_failure(error, load=load)
        if not explanation:
            raise
        raise OSError(explanation) from error


def report_errors(args: argparse.Namespace, action: Callable[[], None]) -> int:
    """Run the action; a mistake of the user becomes one line on standard error. Returns the exit code."""
    try:
        action()
    except Interrupted as stopped:
        _complain(f"{stopped}; --resume goes on")
        return stopped.exit_code
    except KeyboardInterrupt:
        _complain("stopped at once")
        return 128 + signal.SIGINT
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if args.debug:
            traceback.print_exc()
        _complain(describe_error(error))
        return USER_ERROR
    return 0


def _complain(text: str) -> None:
    """One line on standard error. What goes wrong on all ranks is said by rank 0, which ends the others while they wait."""
    rank = idist.get_rank()
    if rank > 0:
        time.sleep(3)
    sys.stderr.write(f"main.py: {f'rank {rank}: ' if rank else ''}{text}\n")


def work(local_rank: int, cfg: Config, args: argparse.Namespace) -> None:
    """One process of several; its exit code says what happened."""
    code = report_errors(args, lambda: execute(local_rank, cfg, args))
    if code:
        sys.stderr.flush()
        os._exit(code)  # without waiting for the others, which may be gone


def launch(cfg: Config, args: argparse.Namespace) -> None:
    """One process per visible GPU, or NUM_PROCESSES; under torchrun, those that it started; otherwise this one."""
    num_gpus = torch.cuda.device_count() if cfg.DEVICE != "cpu" else 0
    num_processes = cfg.NUM_PROCESSES or max(num_gpus, 1)
    backend = "nccl" if num_gpus else "gloo"
    if "WORLD_SIZE" in os.environ:
        idist.initialize(backend)
        work(idist.get_local_rank(), cfg, args)
        idist.finalize()
    elif num_processes > 1:
        logging.getLogger("torch.multiprocessing.spawn").setLevel(
            logging.ERROR
        )  # the ranks say what happened
        previous = {
            number: signal.signal(number, _pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }
        if "lo" in (name for _, name in socket.if_nameindex()):
            os.environ.setdefault(
                "GLOO_SOCKET_IFNAME", "lo"
            )  # nobody else is to reach these processes
        try:
            with (
                tempfile.TemporaryDirectory() as folder
            ):  # they find each other in a file, not at an open port
                where = f"file://{folder}/processes"
                idist.spawn(
                    backend, work, args=(cfg, args), nproc_per_node=num_processes, init_method=where
                )
        except ProcessExitedException as error:
            if error.exit_code < 0:
                _complain(
                    f"process {error.error_index} was ended by {error.signal_name}; --resume goes on"
                )
            sys.exit(error.exit_code if error.exit_code >= 0 else 128 - error.exit_code)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
    else:
        execute(0, cfg, args)


def _pass_on(number: int, _frame) -> None:
    """A signal to the parent of several processes is meant for them; they save and end, and so does their parent."""
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    setup_logging()
    return report_errors(args, lambda: launch(read_config(args), args))


if __name__ == "__main__":
    sys.exit(main())
