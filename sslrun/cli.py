"""The command line: a verb, or Hydra overrides. Imports neither torch nor lightning, and alone decides to exit."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from sslrun import __version__
from sslrun.verbs import USAGE


def main(argv: list[str] | None = None) -> None:
    """Runs what the arguments ask for; exits with a status other than 0, after one sentence, where that fails."""
    argv = sys.argv[1:] if argv is None else argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's errors reach us, and are reworded below
    try:
        if argv[:1] == ["--version"]:
            print(f"sslrun {__version__}")
        elif argv and argv[0] in USAGE:
            _verb(*argv)
        else:
            _hydra(argv)
    except KeyboardInterrupt as stop:
        ahead = str(stop) or "what was trained is saved, `sslrun resume RUN` goes on."
        print(f"sslrun: interrupted; {ahead}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if "traceback=true" in argv:
            raise
        from sslrun.explain import explain

        print(f"sslrun: {explain(error)}", file=sys.stderr)
        sys.exit(1)


def _verb(name: str, *argv: str) -> None:
    if {"-h", "--help"} & set(argv):
        print(f"usage: {USAGE[name]}")
        return
    from sslrun.catalogue import take_folders

    import_module(f"sslrun.verbs.{name}").main(take_folders(list(argv)))


def _hydra(argv: list[str]) -> None:
    import hydra
    from hydra._internal.utils import get_args_parser

    given, strange = get_args_parser().parse_known_args(argv)
    if strange:  # argparse would print a page and exit
        from sslrun.errors import UserError

        raise UserError(f"{strange[0]} is no flag of sslrun; `sslrun --help` and `sslrun --hydra-help` list them.")
    from sslrun.schema import conf_dir, register

    register()
    asks = given.cfg or given.help or given.hydra_help or given.info or given.shell_completion
    if not asks and (given.multirun or any(o.startswith("experiment=") for o in given.overrides)):
        from sslrun.sweep import ran

        if ran(given.overrides, given.config_dir, given.multirun):
            return
    failed: list[Exception] = []

    @hydra.main(config_path=conf_dir(), config_name="config", version_base="1.3")
    def task(cfg: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        from sslrun.catalogue import add_folder
        from sslrun.run import run

        now = HydraConfig.get()
        for source in now.runtime.config_sources:
            if source.schema == "file" and source.provider != "main":
                add_folder(source.path)
        try:
            run(cfg, Path(now.runtime.output_dir), overrides=list(now.overrides.task))
        except Exception as error:
            failed.append(error)  # Hydra would add lines of its own

    old, sys.argv = sys.argv, [sys.argv[0], *argv]
    try:
        task()
    finally:
        sys.argv = old
    if failed:
        raise failed[0]
