"""A small RepVGG on the handwritten digits of scikit-learn; needs no files.

Command:  python -m experiments.train
Accuracy: to be measured
Time:     to be measured
"""

from experiments.train.config import Config, Data, Network, Optimizer

CONFIG = Config(
    data=Data(data="digits", shift=1),
    network=Network(
        override=(
            "depths=(2,2,2)",
            "widths=(32,64,128)",
            "strides=(1,2,2)",
            "stem_strides=1",
        )
    ),
    optimizer=Optimizer(epochs=15, batch_size=64),
)
