"""Train or test a re-identification network.

python main.py -c configs/x.yml [KEY VALUE ...]            train, then evaluate
python main.py -c configs/x.yml --resume [KEY VALUE ...]   continue a run from last.pt
python main.py -t TEST.WEIGHT FILE [KEY VALUE ...]         test a checkpoint with its recipe
python main.py -t -c configs/x.yml TEST.WEIGHT FILE        test any weight file
"""

import argparse
import logging
import sys
from contextlib import ExitStack
from pathlib import Path

import ignite.distributed as idist
from ember_reid.config import Config, join_negative_values, load_config
from ember_reid.data.build import build_splits
from ember_reid.data.loader_processes import loader_processes
from ember_reid.engine.build import (
    build_benchmarks,
    build_device,
    build_trained_model,
    read_test_config,
)
from ember_reid.engine.cpu.build import settle_machine
from ember_reid.engine.distill.build import compare_with_teachers
from ember_reid.engine.environment import record_start
from ember_reid.engine.evaluator import score
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.handlers.checkpoints import resume_engine
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.plugins import load_plugins
from ember_reid.engine.run.build import (
    TrainingRun,
    build_training_run,
    check_resumable,
    describe_load,
    seed_everything,
)
from ember_reid.engine.run.cluster import count_gpus
from ember_reid.engine.run.launch import (
    check_num_processes,
    explain_failures,
    launch,
    report_errors,
)
from ember_reid.engine.run.lock import locked_folder
from ember_reid.engine.run.output_folder import (
    ENVIRONMENT_FILE,
    check_output_folder,
    check_test_folder,
    has_checkpoint,
    is_restarted,
    prepare_output_folder,
    write_report,
    write_results,
)
from ember_reid.tools.common.cli import Parser

logger = logging.getLogger("ember.main")

Results = dict[str, dict]


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 2 after an error of the user, 128 + signal."""
    args = parse_arguments(argv)
    setup_logging()

    def execute() -> None:
        if args.test:
            test(read_test_config(args.config, args.overrides))
        else:
            train(load_config(args.config, args.overrides), resume=args.resume)

    return report_errors(execute, program="main.py", debug=args.debug)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = Parser(prog="main.py", description=__doc__ or "")
    add = parser.add_argument
    add("-c", "--config", metavar="RECIPE", help="a recipe: a file, or the name of one in configs/")
    add("-t", "--test", action="store_true", help="test TEST.WEIGHT instead of training")
    add("--resume", action="store_true", help="continue from OUTPUT_DIR/checkpoints/last.pt")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("overrides", nargs="*", metavar="KEY VALUE", help="any key of config/defaults.py")
    return parser.parse_intermixed_args(
        join_negative_values(sys.argv[1:] if argv is None else argv)
    )


def train(cfg: Config, *, resume: bool = False) -> Results:
    """Train on all processes of the run, then evaluate.

    Returns:
        The content of `results.json`.

    Raises:
        ValueError, OSError, ModuleNotFoundError: an error that the user can fix.
        Interrupted: a signal stopped the run after `last.pt` was written.
    """
    return _launch(cfg, run_training, resume)


def test(cfg: Config) -> Results:
    """Score TEST.WEIGHT on the test sets; returns and raises as `train` does."""
    check_test_folder(Path(cfg.OUTPUT_DIR))
    return _launch(cfg, run_test)


def _launch(cfg: Config, function, *args: object) -> Results:
    """One process per visible GPU, or NUM_PROCESSES."""
    num_gpus = count_gpus() if cfg.DEVICE != "cpu" else 0
    num_processes = cfg.NUM_PROCESSES or max(num_gpus, 1)
    check_num_processes(num_processes, num_gpus=num_gpus, batch_size=cfg.SOLVER.IMS_PER_BATCH)
    return launch(function, cfg, *args, num_processes=num_processes, use_cuda=num_gpus > 0)


def run_training(cfg: Config, resume: bool) -> Results:
    """Train in this process, one of possibly several. Nothing is written before all checks."""
    setup_logging(quiet=idist.get_rank() > 0)
    folder, max_epochs = Path(cfg.OUTPUT_DIR), cfg.SOLVER.MAX_EPOCHS
    with ExitStack() as stack:
        stack.enter_context(explain_failures(describe_load(cfg)))
        if idist.get_rank() == 0:
            stack.enter_context(locked_folder(folder))
        device = build_device(cfg)
        cfg = settle_machine(cfg, device, resume=resume)
        restarted = is_restarted(folder, cfg.dump())
        resume = resume or (restarted and has_checkpoint(folder))
        check_output_folder(folder, resume=resume, overwrite=cfg.OVERWRITE or restarted)
        seed_everything(cfg)
        run = build_training_run(cfg, device, pretrained=not resume)
        control = build_control(run)
        for handler in build_handlers(run, control):
            handler.attach(run.trainer)
        if resume:
            content = control.checkpoints.load()
            check_resumable(run, content)
            progress = control.checkpoints.restore(content)
            resume_engine(run.trainer, progress, run.train_loader, max_epochs=max_epochs)
        start_output(run, folder, resume=resume)
        iteration = progress["iteration"] if resume else None
        stack.enter_context(run.writers.opened(resumed_iteration=iteration))
        stack.enter_context(control.checkpoints.writer)
        stack.enter_context(control.stop_on_signal)
        stack.enter_context(loader_processes(run.train_loader))
        if run.trainer.state.iteration < max_epochs * len(run.train_loader):
            run.trainer.run(run.train_loader, max_epochs, epoch_length=len(run.train_loader))
        elif control.evaluation.run_if_due(run.trainer):
            control.checkpoints.save_and_wait(run.trainer)
        results = control.evaluation.final_results or score(run.benchmarks)
        finish_output(run, folder, results)
    return results


def start_output(run: TrainingRun, folder: Path, *, resume: bool) -> None:
    """Prepare the output folder once all ranks have passed their checks, and describe the run."""
    idist.barrier()
    state, loader = run.trainer.state, run.train_loader
    if idist.get_rank() == 0:
        prepare_output_folder(folder, config=run.cfg.dump(), resume=resume)
        setup_logging(folder / "log.txt")
        record_start(folder / ENVIRONMENT_FILE, run.environment, iteration=state.iteration)
    idist.barrier()
    logger.info(
        "%s on %s, %d process(es): %.2f M parameters, %d identities, %d images, %d iterations "
        "per epoch",
        run.cfg.MODEL.BACKBONE.NAME,
        run.device,
        idist.get_world_size(),
        sum(parameter.numel() for parameter in run.model.parameters()) / 1e6,
        run.data.num_classes,
        len(run.data.records),
        len(loader),
    )
    environment = ", ".join(f"{name} {value}" for name, value in run.environment.items())
    logger.info("environment: %s", environment)
    if resume:
        logger.info("resumed after epoch %d, iteration %d", state.epoch, state.iteration)


def finish_output(run: TrainingRun, folder: Path, results: Results) -> None:
    """Write the results, compare them with those of the teachers, and write the report."""
    cfg = run.cfg
    if idist.get_rank() == 0:
        write_results(
            folder, results, trained_on=cfg.DATASETS.NAMES, same_domain=run.data.same_domain
        )
    compare_with_teachers(
        cfg,
        run.distillation,
        run.ema.model,
        tests=run.data.tests,
        results=results,
        device=run.device,
    )
    if cfg.LOG.REPORT and idist.get_rank() == 0:
        write_report(folder)


def run_test(cfg: Config) -> Results:
    """Score TEST.WEIGHT in this process, one of possibly several."""
    setup_logging(quiet=idist.get_rank() > 0)
    with explain_failures(describe_load(cfg)):
        device = build_device(cfg)
        seed_everything(cfg)
        load_plugins(cfg.IMPORTS)
        data = build_splits(cfg, train=False)
        model = build_trained_model(cfg, device)
        results = score(build_benchmarks(cfg, data.tests, model, device))
    if idist.get_rank() == 0:
        write_results(
            Path(cfg.OUTPUT_DIR),
            results,
            trained_on=cfg.DATASETS.NAMES,
            same_domain=data.same_domain,
        )
    return results


if __name__ == "__main__":
    sys.exit(main())
