"""A RepVGG of four blocks on Fashion-MNIST, the recipe of the table in docs/training.md.

Command:  python -m experiments.train fashion-mnist --folder PATH
Data:     four IDX files; Debian's package dataset-fashion-mnist has them
Accuracy: to be measured
Time:     to be measured
"""

from experiments.train.config import Config, Data, Network, Optimizer

CONFIG = Config(
    data=Data(data="fashion-mnist", flip=True),
    network=Network(
        override=(
            "depths=(1,1,1)",
            "widths=(16,32,64)",
            "stem_width=16",
            "strides=(1,2,2)",
        )
    ),
    optimizer=Optimizer(
        epochs=3,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        nesterov=True,
        weight_decay=1e-4,
    ),
)
