"""Train a network on images, with branches in any of four forms; fuse it, verify it, save it.

`python -m experiments.train` trains on the handwritten digits of scikit-learn. The rooms, in
the order in which a run passes through them:

    config, recipes      what is trained, typed; one file per recipe
    devices              processes, and the mesh of all their devices
    data, loader         image sets; shuffled, augmented batches of them by Grain
    networks, forms      a network by name or import path; the four ways to train it
    optimizer, step      optax; one jitted step
    checkpoints          Orbax, atomic: the last and the best
    task, loop           what a run is made of, and the run
    log, curves          its progress, its metrics and their figure
    finish, predictions  recalibrate, fuse, verify, compare both forms on the test images
"""
