"""What is known of the other processes of a training, and of the machines that they are on."""

import logging
import re
import socket
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment

from squad_lit.training.distributed import check_nodes, lost

pytestmark = pytest.mark.filterwarnings("ignore:The .srun. command is available")


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> L.Trainer:
    """A trainer on two machines that nothing has started."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return L.Trainer(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp", logger=False)


def test_a_machine_that_cannot_find_the_others_says_so_and_does_not_wait(
    trainer: L.Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(ValueError, match=r"trainer.num_nodes=2: .* \(missing: MASTER_ADDR, MASTER_PORT\)"):
        check_nodes(trainer)


def test_a_machine_says_which_others_it_waits_for(
    trainer: L.Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "23456", "NODE_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        check_nodes(trainer)
    assert caplog.messages[0].startswith("machine 0 of 2 waits for the others at 10.0.0.7:23456")


@pytest.mark.parametrize("number", [1, 2])
def test_one_machine_and_one_whose_processes_a_cluster_starts_know_enough(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: Any = SimpleNamespace(num_nodes=number, strategy=SimpleNamespace())
    if number == 2:
        started.strategy.cluster_environment = TorchElasticEnvironment.__new__(TorchElasticEnvironment)
    check_nodes(started)


@pytest.mark.parametrize("first", [True, False])
def test_a_machine_that_waited_in_vain_says_so(first: bool) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.distributed.TCPStore(
            "127.0.0.1", free_port(), world_size=2, is_master=first, timeout=timedelta(seconds=1)
        )
    words = "waiting for clients. 1/2" if first else "trying to connect to"
    assert re.match(rf"the processes of this training have not found each other \(.*{words}", lost(caught.value))


def test_a_connection_that_ends_is_of_a_process_that_is_gone() -> None:
    assert lost(RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1")).startswith("another process of this ")
    assert lost(RuntimeError("shape mismatch")) == lost(ValueError("connection")) == ""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
