"""A small RepVGG on CIFAR-10.

Command:  python -m experiments.train cifar10 --folder PATH
Data:     the six .bin files of the binary version
Accuracy: not measured
Time:     not measured
"""

from experiments.train.config import Config, Data, Network, Optimizer

CONFIG = Config(
    data=Data(data="cifar10", shift=4, flip=True),
    network=Network(
        override=(
            "depths=(2,4,4)",
            "widths=(64,128,256)",
            "strides=(1,2,2)",
            "stem_strides=1",
        )
    ),
    optimizer=Optimizer(
        epochs=100,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        warmup=5,
        nesterov=True,
        weight_decay=5e-4,
    ),
)
