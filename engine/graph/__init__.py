"""The whole training step as one CUDA graph.

An iteration has two parts. The host part draws random numbers and writes them, with the rows of the
images, labels and learning rates, into a slot of a pinned ring buffer. The device part is a
function of static tensors only: it gathers the images, augments them, runs teachers, forward and
backward pass, optimizers and running averages, and stores the losses. It runs eagerly during the
first iterations, is then captured, and is replayed from then on.

    buffers.py   the ring buffer, and the static tensors on the device
    step.py      the host part and the device part
    capture.py   warm-up, capture, replay, and the fallback to eager execution
    build.py     from the configuration to the kind of step; the reasons against capturing

On a CPU the same code can be rehearsed: a stand-in for the graph replays by calling the function.
"""
