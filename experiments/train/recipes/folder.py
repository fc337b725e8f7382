"""RepVGG-A0 on a folder of images, as its authors train it on ImageNet.

Command:  python -m experiments.train folder --folder PATH
Data:     PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg
Accuracy: 72.41 % on ImageNet by the authors in PyTorch (Ding et al., RepVGG, CVPR 2021, table 4);
          not measured here
Time:     not measured
"""

from experiments.train.config import Config, Data, Network, Optimizer

CONFIG = Config(
    data=Data(data="folder", flip=True, threads=16, holdout=0.01),
    network=Network(network="repvgg_a0"),
    optimizer=Optimizer(
        epochs=120,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.1,
        warmup=0,
        weight_decay=1e-4,
    ),
)
