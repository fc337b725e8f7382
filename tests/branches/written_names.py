"""Every name of a node that a version of this library wrote: add to it, take nothing away."""

NAMES = [
    "y=conv3x3[bias]+conv1x1[bias]+identity",
    "y=norm(conv3x3)+norm(conv1x1)+norm(identity)",
    "y=norm(conv3x3)+norm(conv1x1)",
    "y=norm(conv5x5)+norm(conv1x1)+norm(identity)",
    "y=4*norm(conv3x3)+norm(conv1x1)+norm(identity)",
    "y=4*norm(conv1x1)+norm(identity)",
    "y=norm(conv1x1)+norm(identity)",
    "y=norm(norm(conv3x3)+conv1x1+identity)",
    "y=norm(norm(conv3x3)+norm(conv1x1)+norm(identity))",
    "y=norm[epsilon=1e-3](norm[epsilon=1e-3](conv3x3)+conv1x1+identity+average3x3)",
    "y=norm(conv3x3)+conv1x1+identity",
    "y=norm[epsilon=1e-3](conv3x3)+norm[epsilon=1e-3](conv1x1)+norm[epsilon=1e-3](identity)",
    "y=norm(conv3x3)+norm(conv3x1)+norm(conv1x3)",
    (
        "y=norm[scale=no,bias=no](conv3x3)+norm[scale=no,bias=no](conv3x1)+norm[scale=no,bias"
        "=no](conv1x3)"
    ),
    (
        "y=norm(conv3x3)+norm(conv1x1)+norm(average3x3(norm(conv1x1)))+norm(conv3x3(norm(conv"
        "1x1+identity)))"
    ),
    "y=norm(conv3x3)+norm(average3x3)+norm(conv3x3(norm(conv1x1)))",
    "y=norm(orepa3x3)",
    "y=norm(orepa3x3(orepa3x3(orepa3x3)))",
    "y=norm(conv3x3(conv3x3(conv3x3)))",
    "y=norm(orepa3x3[pointwise=no])+norm(conv1x1)+norm(identity)",
    "y=norm(scale(conv1x1)+scale(conv1x1(conv1x1)))",
    (
        "y=conv3x3[bias]+conv3x3[bias](conv1x1[bias])+scale[bias](sobelx3x3(conv1x1[bias]))+s"
        "cale[bias](sobely3x3(conv1x1[bias]))+scale[bias](laplacian3x3(conv1x1[bias]))"
    ),
    (
        "y=conv3x3[bias]+conv3x3[bias](conv1x1[bias])+scale[bias](sobelx3x3(conv1x1[bias]))+s"
        "cale[bias](sobely3x3(conv1x1[bias]))+scale[bias](laplacian3x3(conv1x1[bias]))+identi"
        "ty"
    ),
    "y=identity+scale(norm(conv3x3)+norm(conv1x1)+norm(identity)-norm(identity))",
    "y=identity+norm(conv3x3)+norm(conv1x1)+norm(identity)-norm(identity)",
    "y=conv7x7[bias]+identity",
    "y=norm(conv7x7)+norm(conv3x3)",
    "y=norm(conv7x7)",
    "y=scale(conv1x1[bias])",
    "y=conv1x1(norm(identity))",
    "y=norm(norm(conv3x3)+conv1x1[bias]+identity)",
    "y=norm(conv3x3)+norm(conv1x1)+identity",
    "y=norm(conv3x3)+norm(identity)",
    "y=norm(conv1x1)",
    "y=norm(conv3x3)+norm(identity)+identity",
    "y=norm(conv31x31)+norm(conv5x5)",
    "y=norm(conv1x1(norm(identity)))",
    "y=norm(conv5x5)+norm(conv3x3)+norm(conv3x3[dilation=2])",
    "y=norm(conv7x7)+norm(conv5x5)+norm(conv3x3[dilation=2])+norm(conv3x3[dilation=3])",
    (
        "y=norm(conv9x9)+norm(conv5x5)+norm(conv5x5[dilation=2])+norm(conv3x3[dilation=3])+no"
        "rm(conv3x3[dilation=4])"
    ),
    (
        "y=norm(conv11x11)+norm(conv5x5)+norm(conv5x5[dilation=2])+norm(conv3x3[dilation=3])+"
        "norm(conv3x3[dilation=4])+norm(conv3x3[dilation=5])"
    ),
    (
        "y=norm(conv13x13)+norm(conv5x5)+norm(conv7x7[dilation=2])+norm(conv3x3[dilation=3])+"
        "norm(conv3x3[dilation=4])+norm(conv3x3[dilation=5])"
    ),
    (
        "y=norm(conv15x15)+norm(conv5x5)+norm(conv7x7[dilation=2])+norm(conv3x3[dilation=3])+"
        "norm(conv3x3[dilation=5])+norm(conv3x3[dilation=7])"
    ),
    (
        "y=norm(conv17x17)+norm(conv5x5)+norm(conv9x9[dilation=2])+norm(conv3x3[dilation=4])+"
        "norm(conv3x3[dilation=5])+norm(conv3x3[dilation=7])"
    ),
    "y=scale(norm(conv1x1))",
    "y=norm(conv3x3)",
    "y=norm(conv5x5)",
    "y=norm(norm(conv7x7)+norm(conv5x5)+norm(conv3x3[dilation=2])+norm(conv3x3[dilation=3]))",
    (
        "y=norm(norm(conv13x13)+norm(conv5x5)+norm(conv7x7[dilation=2])+norm(conv3x3[dilation"
        "=3])+norm(conv3x3[dilation=4])+norm(conv3x3[dilation=5]))"
    ),
    "y=4*norm(conv3x3)+norm(conv1x1)",
    "y=4*norm(conv1x1)",
    "y=conv1x1[bias](norm(identity))",
    "y=norm(conv29x29)+norm(conv5x5)",
    "y=norm(conv27x27)+norm(conv5x5)",
    "y=norm(conv13x13)+norm(conv5x5)",
    "y=scale(norm(conv1x1(shift(identity))))",
]
"""As modules write them today."""

OREPA = (
    "scale(conv3x3)+scale(mean3x3(conv1x1))+scale(cosine3x3(conv1x1))"
    "+scale(conv3x3(conv1x1+eye1x1))"
)
DEPTHWISE = "+scale(conv1x1(depthwise3x3[multiplier=8]))"
SET = f"{OREPA}+scale(conv1x1){DEPTHWISE}"
OLD = {
    f"y=norm({SET})": "y=norm(orepa3x3)",
    f"y=norm(({SET})(({SET})({SET})))": "y=norm(orepa3x3(orepa3x3(orepa3x3)))",
    f"y=norm({OREPA}{DEPTHWISE})+norm(conv1x1)+norm(identity)": (
        "y=norm(orepa3x3[pointwise=no])+norm(conv1x1)+norm(identity)"
    ),
}
"""As older versions wrote them, with the name of today."""
