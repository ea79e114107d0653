"""Stage `places`: which files of a corpus lie on this machine, where they may change.

Of most corpora none does. DVC lets `download` depend on nothing that is not there, so this is there
for all of them; what is found at the places, stage `look` adds for those that are watched.
"""

from brewline.core.errors import BrewlineError
from brewline.core.files import remove, write_json
from brewline.core.programs import exits_cleanly
from brewline.download.local import FOUND_FILE, NAMED_FILE, PLACES_DIR, places_of
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    places = places_of(params.sources[corpus])
    folder = PLACES_DIR / corpus
    if corpus not in params.watched:
        name = next((name for name, path in places.items() if path.is_dir()), None)
        if name:
            raise BrewlineError(
                f"sources.{corpus}.files.{name} is a folder, which is read where it lies; add "
                f"{corpus} to `watched`, so that a change in it is noticed",
                "settings",
            )
        # Of a corpus that was watched before; no stage makes it any more.
        remove(folder / FOUND_FILE)
    write_json(folder / NAMED_FILE, {name: str(path) for name, path in places.items()})


if __name__ == "__main__":
    main()
