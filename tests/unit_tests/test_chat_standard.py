"""LangChain's standard suite for chat models: the tests that need no swarm."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_petals import ChatPetals

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


class TestChatPetals(ChatModelUnitTests):
    """The suite; the abilities that it does not name are on."""

    @pytest.fixture(autouse=True)
    def _listed_as_loadable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the class on LangChain's list of what may be loaded.

        The list names the partner packages that LangChain itself keeps. Others are loaded with
        `allowed_objects=[ChatPetals]`, for which the suite has no way.
        """
        load = importlib.import_module("langchain_core.load.load")  # the package has a function of this name
        path = tuple(ChatPetals.lc_id())
        monkeypatch.setitem(load.ALL_SERIALIZABLE_MAPPINGS, path, path)
        monkeypatch.setattr(load, "_default_class_paths_cache", {})

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatPetals

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "petals-team/StableBeluga2"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"HF_TOKEN": "hf_from_the_environment"},
            self.chat_model_params,
            {"huggingface_api_key": "hf_from_the_environment"},
        )
