"""Stage `look`: what lies now at the places of a watched corpus; DVC runs it every time."""

from brewline.core.files import write_json
from brewline.core.programs import exits_cleanly
from brewline.core.survey import files_at, survey
from brewline.download.local import FOUND_FILE, PLACES_DIR, places_of
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage.

    A place where nothing is counts as empty; `download` says which one, if it needs it.
    """
    params, corpus = named_argument(__doc__, "watched")
    places = places_of(params.sources[corpus])
    found = {name: survey(files_at(path)) for name, path in places.items()}
    write_json(PLACES_DIR / corpus / FOUND_FILE, found)


if __name__ == "__main__":
    main()
