"""From one node of a configuration to the object that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sslrun.bounds import refuse_types
from sslrun.catalogue import locate
from sslrun.errors import UserError


def make(node: Mapping[str, Any], where: str, *args: Any, **kwargs: Any) -> Any:
    """Calls the class or function that a node names; errors name the key.

    Arguments are passed by a partial, so that Hydra does not turn them into configuration nodes.
    """
    refuse_types(locate(node["_target_"]), node, where)
    try:
        factory = instantiate(OmegaConf.create({**node, "_partial_": True}), _convert_="all")
        return factory(*args, **kwargs)
    except UserError:
        raise
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{where}: {cause or error}") from error
    except TypeError as error:
        hint = "; `sslrun --cfg job` shows the keys there are" if "keyword" in str(error) else ""
        raise UserError(f"{where}: {error}{hint}.") from error
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{where}: {error}.") from error
