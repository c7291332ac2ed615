"""The README's first function works as it stands there."""

import re
from pathlib import Path

import numpy as np

from kubeml.client.client import Client

ROOT = Path(__file__).parents[2]


def test_first_function_of_the_readme_trains_and_infers(client: Client, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(# network\.py.*?)```", text, re.DOTALL)
    assert code is not None
    (tmp_path / "network.py").write_text(code[1])
    digits = ROOT / "scripts" / "data" / "mnist_subset.npz"
    # The name stands in the code; this test's digits may be there from another one.
    if "mnist" not in [d.name for d in client.datasets.list()]:
        client.datasets.create(
            "mnist", train_data=f"{digits}:x_train", train_labels=f"{digits}:y_train",
            test_data=f"{digits}:x_test", test_labels=f"{digits}:y_test",
        )  # fmt: skip
    client.functions.create("readme", tmp_path / "network.py")

    job = client.train("readme", "mnist", epochs=4, batch_size=32, lr=0.1, k=8)
    end = job.wait(120)

    with np.load(digits) as arrays:
        images, labels = arrays["x_test"][:20], arrays["y_test"][:20]
    assert end.accuracy is not None
    assert end.accuracy > 70
    assert np.mean(np.array(job.infer(images.tolist())) == labels) > 0.6
