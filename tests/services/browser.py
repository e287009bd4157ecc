"""A real browser without a window, and what it says and asks of the network."""

import json
import os
from pathlib import Path
from typing import Any

from services.install import find


class Browser:
    """Chromium, driven through chromedriver."""

    def __init__(self) -> None:
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        options = ChromeOptions()
        options.binary_location = find("chromium") or ""
        for argument in (
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1400,1000",
        ):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options, Service(find("chromedriver")))

    def open(self, path: Path) -> Any:
        """Load a file; logs of earlier pages are dropped."""
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        self.driver.get(path.absolute().as_uri())
        return self.driver

    def complaints(self) -> list[str]:
        """What the console has said since it was asked last."""
        return [line["message"] for line in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that pages have asked for since this was asked last, but those of data in the page."""
        messages = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        addresses = [one["request"]["url"] for one in sent]
        return [address for address in addresses if not address.startswith("data:")]

    def picture(self, path: Path) -> None:
        """What is to be seen now, as PNG."""
        self.driver.save_screenshot(str(path))

    def close(self) -> None:
        """End it."""
        self.driver.quit()
