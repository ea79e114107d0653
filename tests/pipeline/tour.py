"""A walk through both UIs in a headless browser, with pictures.

    python tests/pipeline/tour.py PREFECT MLFLOW FOLDER

It fills the form of the pipeline, starts it, sees it end, and looks at MLflow's runs, at their
comparison and at its registry. The pictures in docs/ were made this way.
"""

import sys
from pathlib import Path
from typing import Any

import requests
from driving import TERMINAL, wait_for
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")


def walk(prefect: str, mlflow: str, folder: Path) -> str:
    """Walks and takes pictures into a folder; returns the state that the run ended in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        run = _start(page, prefect, folder / "operate-form.png")
        wait_for(lambda: _state(prefect, run) in TERMINAL)
        page.goto(f"{prefect}/runs/flow-run/{run}")
        page.get_by_text("Completed").first.wait_for()
        page.wait_for_timeout(3000)
        page.screenshot(path=folder / "operate-run.png")
        _look_at_mlflow(page, mlflow, folder)
        browser.close()
    return _state(prefect, run)


def _start(page: Page, prefect: str, picture: Path) -> str:
    """Fills the form and submits it; returns the flow run's id."""
    found = requests.get(f"{prefect}/api/deployments/name/pipeline/run-pipeline", timeout=30).json()
    page.goto(f"{prefect}/deployments/deployment/{found['id']}/run")
    page.get_by_text("from_stage").first.wait_for()
    page.wait_for_timeout(2000)
    # The third choice of the form, after corpora and experiments; its list opens by the keyboard.
    page.locator(".p-select button").nth(2).click()
    page.keyboard.press("ArrowDown")
    page.locator(".p-select-option").get_by_text("report", exact=True).click()
    page.wait_for_timeout(1000)
    page.screenshot(path=picture, full_page=True)
    before = _runs(prefect, found["id"])
    page.get_by_role("button", name="Submit").click()
    wait_for(lambda: len(_runs(prefect, found["id"])) > len(before), 30)
    newest = _runs(prefect, found["id"])[0]
    assert newest["parameters"]["from_stage"] == "report", newest["parameters"]
    return str(newest["id"])


def _runs(prefect: str, deployment: str) -> list[dict[str, Any]]:
    """The runs of a deployment, the newest first; those of a schedule lie in the future."""
    body = {
        "deployments": {"id": {"any_": [deployment]}},
        "sort": "EXPECTED_START_TIME_DESC",
    }
    answer = requests.post(f"{prefect}/api/flow_runs/filter", json=body, timeout=30)
    return list(answer.json())


def _state(prefect: str, run: str) -> str:
    answer = requests.get(f"{prefect}/api/flow_runs/{run}", timeout=30).json()
    return str(answer["state"]["type"])


def _look_at_mlflow(page: Page, mlflow: str, folder: Path) -> None:
    """The runs, the comparison of the trained models of a corpus, and the registry."""
    api = f"{mlflow}/api/2.0/mlflow"
    named = requests.get(
        f"{api}/experiments/get-by-name", params={"experiment_name": "brewline"}, timeout=30
    ).json()
    experiment = named["experiment"]["experiment_id"]
    # As `make ui` prints it.
    runs = f"{mlflow}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    page.goto(f"{runs}&viewStateShareKey=brewline")
    page.get_by_text("Run Name").first.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=folder / "operate-runs.png")
    found = requests.post(
        f"{api}/runs/search",
        json={
            "experiment_ids": [experiment],
            "filter": "tags.kind = 'model' and tags.corpus = 'mini-lncoco' and tags.seed = '0'",
        },
        timeout=30,
    ).json()["runs"]
    ids = ",".join(f'"{run["info"]["run_id"]}"' for run in found[:3])
    page.goto(f'{mlflow}/#/compare-runs?runs=[{ids}]&experiments=["{experiment}"]')
    page.get_by_text("Comparing").first.wait_for()
    page.wait_for_timeout(5000)
    page.screenshot(path=folder / "operate-compare.png")
    page.goto(f"{mlflow}/#/models/brewline-mini-lncoco")
    page.get_by_text("challenger").first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=folder / "operate-registry.png")


if __name__ == "__main__":
    print(walk(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
