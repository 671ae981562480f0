"""Chat templates of twenty-odd families, in our own wording: what they write, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from text_tokenizers import CHATML, QWEN25, TEMPLATES, write_tokenizer


@dataclass(frozen=True)
class Family:
    """A template, and the tokens of its own that it needs."""

    template: str
    added: tuple[str, ...] = ()

    def load(self, folder: Path) -> Tokenizer:
        """Its tokenizer, in a folder that `write_vocabulary` made."""
        file = folder / f"{hash(self.template)}.jinja"
        file.write_text(self.template, encoding="utf-8")
        return load_tokenizer(folder, template=str(file))


def write_vocabulary(folder: Path) -> Path:
    """A tokenizer with the tokens of all families; each matters where a template writes it."""
    added = {token for family in FAMILIES.values() for token in family.added}
    return write_tokenizer(folder, CHATML, added=tuple(sorted(added)))


def turns(system: str, user: str, assistant: str, end: str, *, first: str = "") -> str:
    """A loop over messages; each argument is an expression of Jinja about `m`."""
    return (
        f"{first}{{% for m in messages %}}{{% if m.role == 'system' %}}{{{{ {system} }}}}"
        f"{{% elif m.role == 'user' %}}{{{{ {user} }}}}"
        f"{{% else %}}{{{{ {assistant} }}}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {end} }}}}{{% endif %}}"
    )


BOS = "{{ bos_token }}"
FOLDED = (
    "{% if messages[0].role == 'system' %}{% set system = OPENED %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
)
"""The system text joins a question."""


def folded(opened: str, loop: str) -> str:
    return FOLDED.replace("OPENED", opened) + loop.replace("in messages", "in rest")


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
ORDERED = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% endfor %}"
)
LLAMA2 = folded(
    "'<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n'",
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + "
    "(system if loop.first else '') + m.content + ' [/INST]' }}{% else %}"
    "{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}",
)
MISTRAL3 = folded(
    "messages[0].content + '\n\n'",
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + "
    "(system if loop.last else '') + m.content + '[/INST]' }}{% else %}"
    "{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
)
GEMMA = (
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role)"
    " + '\n' + (system if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = TEMPLATES["llama3"]
TODAY = "'\nToday Date: ' + strftime_now('%d %b %Y') + '\n\n'"
DATED = (
    BOS + "{{ '<|start_header_id|>system<|end_header_id|>\n' + " + TODAY + " + (messages[0].content"
    " if messages[0].role == 'system' else '') + '<|eot_id|>' }}{% for m in messages "
    "if m.role != 'system' %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
    "m.content + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
R_TURN = "<|START_OF_TURN_TOKEN|>"
ROLE = "'<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + eos_token + '\n'"
CHATTING = "A chat between a curious user and an assistant."

FAMILIES = {
    "chatml": Family(CHATML),
    "smollm2": Family(QWEN25.replace("You are helpful.", "You are SmolLM.") + CHATML),
    "qwen2.5": Family(TEMPLATES["qwen2.5"]),
    "qwen3": Family(TEMPLATES["qwen3"], ("<think>", "</think>")),
    "qwen3-tools": Family(TEMPLATES["qwen3-tools"], ("<think>", "</think>")),
    "llama3": Family(LLAMA3),
    "llama2": Family(LLAMA2),
    "gemma": Family(TEMPLATES["gemma"]),
    "gemma3": Family(folded("messages[0].content + '\n\n'", BOS + GEMMA)),
    "mistral-v0.1": Family(REFUSES + ORDERED + TEMPLATES["mistral"]),
    "mistral-v0.2": Family(TEMPLATES["mistral"]),
    "mistral-v0.3": Family(MISTRAL3),
    "mistral-v7": Family(
        turns(
            "'[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]'",
            "'[INST] ' + m.content + '[/INST]'",
            "' ' + m.content + eos_token",
            "''",
            first=BOS,
        ),
        ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
    "phi3": Family(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "phi4": Family(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + "
        "'<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        ("<|im_sep|>",),
    ),
    "deepseek-v3": Family(
        turns(
            "m.content",
            "'<｜User｜>' + m.content",
            "'<｜Assistant｜>' + m.content + eos_token",
            "'<｜Assistant｜>'",
            first=BOS,
        ),
        ("<｜User｜>", "<｜Assistant｜>"),
    ),
    "deepseek-v2": Family(
        turns(
            "m.content + '\n\n'",
            "'User: ' + m.content + '\n\n'",
            "'Assistant: ' + m.content + eos_token",
            "'Assistant:'",
            first=BOS,
        ).replace("'Assistant: ' +", "'Assistant:' + ' ' +"),
    ),
    "zephyr": Family(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>"),
    ),
    "vicuna": Family(
        "{% if messages[0].role != 'system' %}{{ '"
        + CHATTING
        + " ' }}{% endif %}"
        + turns(
            "m.content + ' '",
            "'USER: ' + m.content + ' '",
            "'ASSISTANT: ' + m.content + eos_token",
            "'ASSISTANT:'",
            first="",
        ),
    ),
    "granite3": Family(
        f"{{% for m in messages %}}{{{{ {ROLE} }}}}{{% endfor %}}{{% if add_generation_prompt %}}"
        "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        ("<|start_of_role|>", "<|end_of_role|>"),
    ),
    "falcon3": Family(
        "{% if messages[0].role == 'system' and not messages[0].content %}"
        "{% set messages = messages[1:] %}{% endif %}"
        + turns(
            "'<|system|>\n' + m.content + '\n'",
            "'<|user|>\n' + m.content + '\n'",
            "'<|assistant|>\n' + m.content + eos_token + ('' if loop.last else '\n')",
            "'<|assistant|>\n'",
        ),
        ("<|system|>", "<|user|>", "<|assistant|>"),
    ),
    "command-r": Family(
        turns(
            f"'{R_TURN}<|SYSTEM_TOKEN|>' + m.content + '<|END_OF_TURN_TOKEN|>'",
            f"'{R_TURN}<|USER_TOKEN|>' + m.content | trim + '<|END_OF_TURN_TOKEN|>'",
            f"'{R_TURN}<|CHATBOT_TOKEN|>' + m.content | trim + '<|END_OF_TURN_TOKEN|>'",
            f"'{R_TURN}<|CHATBOT_TOKEN|>'",
            first=BOS,
        ),
        (
            R_TURN,
            "<|SYSTEM_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
        ),
    ),
    "olmo2": Family(
        turns(
            "'<|system|>\n' + m.content + '\n'",
            "'<|user|>\n' + m.content + '\n'",
            "'<|assistant|>\n' + m.content + (eos_token if loop.last else eos_token + '\n')",
            "'<|assistant|>\n'",
            first=BOS,
        ),
    ),
    "openchat": Family(
        "{{ bos_token }}{% for m in messages %}{{ 'GPT4 Correct ' + m.role | title + ': ' + "
        "m.content + '<|end_of_turn|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ 'GPT4 Correct Assistant:' }}{% endif %}",
        ("<|end_of_turn|>",),
    ),
    "exaone": Family(
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
        "{{ '[|system|][|endofturn|]\n' }}{% endif %}{{ '[|' + m.role + '|]' + m.content }}"
        "{{ '\n' if m.role == 'user' else '[|endofturn|]\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}",
        ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
    ),
    "alpaca": Family(
        turns(
            "m.content + '\n\n'",
            "'### Instruction:\n' + m.content + '\n\n'",
            "'### Response:\n' + m.content + eos_token + '\n\n'",
            "'### Response:\n'",
        ),
    ),
}
"""Those whose templates are told by what stands between messages."""

OTHERS = {
    "llama3.2": (Family(DATED), "the date of the day"),
    "numbered": (
        Family(
            "{% for m in messages %}{{ '[Round ' ~ loop.index ~ '] ' + m.role + ': ' + m.content "
            "+ eos_token }}{% endfor %}{% if add_generation_prompt %}"
            "{{ '[Round ' ~ (messages | length + 1) ~ '] assistant: ' }}{% endif %}"
        ),
        "several turns",
    ),
    "echoing": (
        Family(CHATML.replace("m.content +", "(m.content + ' ') * (1 + loop.index0 // 2) +")),
        "each message once",
    ),
    "escaped": (
        Family(CHATML.replace("+ m.content +", "}}{{ m.content | e }}{{")),
        "braces and markup",
    ),
    "empty-as-default": (
        Family(
            "{% if messages[0].content == '' %}{{ '<|im_start|>system\nNobody.<|im_end|>\n' }}"
            "{% endif %}" + CHATML
        ),
        "an empty system turn",
    ),
}
"""Those that are not, and what is said of them."""
