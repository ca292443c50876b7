"""Every YAML file composes, and says the same as the constructor it names."""

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sslrun.build import MODULE_KEYS, OPTIMIZER_KEYS, SWEEP_KEYS
from sslrun.catalogue import locate, methods, targets, trusted
from sslrun.compose import compose
from sslrun.schema import chosen, conf_dir

GROUPS = ("method", "data", "encoder", "augmentation", "optimizer", "device", "eval", "logger", "sweep", "launcher")
FILES = [(group, path.stem) for group in GROUPS for path in sorted(Path(conf_dir(), group).glob("*.yaml"))]
SET_BY_THE_RUN = {"optimizer": OPTIMIZER_KEYS, "data": MODULE_KEYS}  # keys that are not the constructor's


def nodes(tree):
    """Every part of a configuration that names a class or a function."""
    if isinstance(tree, dict):
        if tree.get("_target_"):
            yield tree
        for child in tree.values():
            yield from nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from nodes(child)


@pytest.mark.parametrize("group, name", FILES, ids=lambda v: v)
def test_it_composes_and_fits_its_constructors(group, name):
    cfg, folder = compose([f"{group}=[{name}]" if group in ("eval", "method") else f"{group}={name}"])
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert folder.parts[0] == "outputs"
    saved = {key: node for key, node in plain.items() if key not in SWEEP_KEYS}
    assert all(trusted(target) for target in targets(saved)), "resume would refuse it"
    for node in nodes(plain[group]):
        allowed = {"_target_", "_partial_", *SET_BY_THE_RUN.get(group, ()), *({"weight"} if group == "method" else ())}
        parameters = inspect.signature(locate(node["_target_"])).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        unknown = set(node) - allowed - set(parameters)
        assert not unknown, f"{node['_target_']} has no {unknown}"


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml")))
def test_an_experiment_composes_with_each_of_its_methods(name):
    cfg, _ = compose([f"experiment={name}"])
    over = OmegaConf.to_container(cfg)["sweep"]["over"]
    for method in over.get("method", [None]):
        cfg, _ = compose([f"experiment={name}", *([f"method={method}"] if method else [])])
        found = OmegaConf.to_container(cfg)["method"]
        names = [] if method == "none" else [method or chosen(found)[0]]
        assert chosen(found) == names, "one method, not what is left of another"
        for one, node in found.items():  # also what the experiment sets for a method that is not chosen
            parameters = inspect.signature(locate(methods()[one]["_target_"])).parameters
            assert set(node) - {"_target_", "weight"} <= set(parameters)


@pytest.mark.parametrize("group", ["method", "data"])
def test_defaults_are_written_once(group):
    """A value in YAML that differs from the constructor's default carries a comment that says why or what."""
    for path in sorted(Path(conf_dir(), group).glob("*.yaml")):
        lines = path.read_text().splitlines()
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
        for node in nodes(tree):
            parameters = inspect.signature(locate(node["_target_"])).parameters
            for key, value in node.items():
                default = parameters[key].default if key in parameters else inspect.Parameter.empty
                same = list(default) == value if isinstance(default, tuple) else default == value
                if default is inspect.Parameter.empty or same:
                    continue
                line = next(line for line in lines if line.strip().startswith(f"{key}:"))
                assert "#" in line, f"{path.name}: {key}={value}, and the constructor's default is {default}"


def test_a_later_choice_wins():
    plain = OmegaConf.to_container(compose(["method=fixmatch", "data=wine", "encoder=mlp", "epochs=7"])[0])
    assert plain["epochs"] == 7 and plain["mu"] == 4 and plain["optimizer"]["_target_"].endswith("sgd")
    both = compose(["method=[supervised,rotation]"])[0].method
    assert list(both) == ["supervised", "rotation"]
