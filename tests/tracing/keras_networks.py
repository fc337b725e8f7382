"""Small Keras networks on JAX, fused: prints what came out as JSON, a process of its own.

KERAS_BACKEND=jax python -m tests.tracing.keras_networks
"""

from __future__ import annotations

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers

import repjax
from tests.tracing.checks import counts, error, image, leaves_called
from tests.tracing.reading import work

SHAPE = (16, 16, 3)


def block(x, features, kind=layers.Conv2D, **options):
    x = kind(*features, padding="same", use_bias=False, **options)(x)
    return layers.BatchNormalization()(x)


def residual():
    """Rescaled images, a stem with strides, a residual block."""
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = layers.ReLU()(block(x, (8, 3), strides=2))
    y = layers.ReLU()(block(x, (8, 3)))
    x = layers.ReLU()(layers.Add()([x, block(y, (8, 3))]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5)(x))


def separable():
    """Two separable branches, added: the cell of NASNet and Xception."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 1)(inputs)
    x = layers.ReLU()(x)
    branches = [block(x, (8, size), layers.SeparableConv2D) for size in (3, 5)]
    x = layers.ReLU()(layers.Add()(branches))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def dense():
    """Stacks of different inputs, then batch norm, a 1x1 and an average pool."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same", use_bias=False)(y)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.AveragePooling2D(2)(layers.Conv2D(8, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.ReLU()(x))


def branches():
    """3x3, 1x1 and identity with a norm each, in a sub-model, then a padded maximum."""
    inputs = keras.Input(SHAPE)
    x = layers.ReLU()(layers.Conv2D(8, 3, padding="same")(inputs))
    x = layers.Add()([block(x, (8, 3)), block(x, (8, 1)), layers.BatchNormalization()(x)])
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(x)))
    return keras.Model(inputs, x)


NETWORKS = {f.__name__: f for f in (residual, separable, dense, branches)}


def describe(name):
    model = NETWORKS[name]()
    rng = np.random.default_rng(0)

    def draw(variable):
        shape = variable.shape
        if len(shape) <= 1:
            return jnp.asarray(rng.uniform(0.5, 1.5, shape))
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))

    variables = {
        "trainable": [draw(one) for one in model.trainable_variables],
        "rest": [draw(one) for one in model.non_trainable_variables],
    }

    def apply(v, x):
        return model.stateless_call(v["trainable"], v["rest"], x, training=False)[0]

    x = image(2, *SHAPE)
    fused = repjax.fuse(apply, variables, x)
    one, two = work(apply, variables, x), work(fused.apply, fused.params, x)
    return {
        "error": float(error(apply(variables, x), fused.apply(fused.params, x))),
        "before": counts(apply, variables, x),
        "after": counts(fused.apply, fused.params, x),
        "products": [one.products + one.scalars, two.products + two.scalars],
        "macs": [one.macs, two.macs],
        "maps": len(leaves_called(fused.params, "bias_map")),
        "paths": [region.path for region in fused.report.regions],
        "reasons": list(fused.report.reasons),
    }


def main():
    jax.config.update("jax_enable_x64", True)
    keras.config.set_dtype_policy("float64")
    json.dump({name: describe(name) for name in NETWORKS}, sys.stdout)


if __name__ == "__main__":
    main()
