"""What every worker imports, imported once by the process from which workers are forked; it computes nothing.

A process that has run a single matrix product keeps threads that a fork does not have, and the fork then hangs.
"""

import lightning.pytorch.loggers
import matplotlib.figure
import sklearn.cluster
import sklearn.manifold
import tensorboard.compat.proto.event_pb2  # noqa: F401
import torch.utils.tensorboard
import torchvision.transforms.v2.functional

import sslrun.run

__all__ = ["lightning", "matplotlib", "sklearn", "sslrun", "torch", "torchvision"]
