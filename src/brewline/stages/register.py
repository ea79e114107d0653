"""Stage `register`: the best model of each corpus becomes a version in MLflow.

The best version of all on dev is the challenger. An experiment registers nothing, unless
`tracking.register_experiments` asks for it.

Writes `reports/registration.json`: which model of each corpus is the best and what was measured of
it, a function of the project's files. The versions and runs in the store are named in
`work/register/versions.json`.

With the tracking server out of reach the stage says so once and succeeds, with the same
`registration.json`; `brewline record` brings the versions in later. Registering a model again
changes nothing.
"""

import argparse
from pathlib import Path

from brewline.config import load_params
from brewline.core.files import write_json
from brewline.core.programs import exits_cleanly
from brewline.registry.candidates import find_challenger
from brewline.registry.policy import load_policy
from brewline.tracking.registration import register_corpus


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    params, policy = load_params(), load_policy()
    facts, versions = {}, {}
    for corpus in params.measured_corpora:
        found = find_challenger(params, corpus, policy)
        facts[corpus] = found.facts if found else None
        registration = register_corpus(params, corpus)
        if registration is None:
            print(f"{corpus}: nothing to register: no row was trained on it and hears speech")
            continue
        print("\n".join(registration.lines))
        versions[corpus] = {
            "name": registration.name,
            "version": registration.version,
            "runs": {path.as_posix(): run_id for path, run_id in registration.runs.items()},
        }
    write_json(Path("work/register/versions.json"), versions)
    write_json(Path("reports/registration.json"), facts)


if __name__ == "__main__":
    main()
