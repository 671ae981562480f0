"""Small tokenizers with templates shaped like the well-known families' (our own wording)."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN25 = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
)
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + (messages[0].content + '\n\n' if messages[0].role =="
    " 'system' else '') + '# Tools\n' }}{% for t in tools %}{{ t | tojson + '\n' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% elif messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}{% if loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}"
    "{% endif %}{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% elif m.role == 'assistant' %}{% set thought = m.reasoning_content or '' %}"
    "{% set said = m.content %}{% if not thought and '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1] %}"
    "{% set said = said.split('</think>')[-1] %}{% endif %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{% endif %}"
    "{{ said.lstrip('\n') }}{% for call in m.tool_calls or [] %}"
    "{{ ('\n' if said or not loop.first else '') + '<tool_call>\n{\"name\": \"' + "
    "call.function.name + '\", \"arguments\": ' + ARGUMENTS + '}\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\nOPENED' }}{% endif %}"
)
"""Tools, calls, results and reasoning as Qwen3 writes them; results stand in a user's turn."""
PLAIN_TOOLS = TOOLS.replace("ARGUMENTS", "call.function.arguments | tojson").replace("OPENED", "")
TEMPLATES = {
    "chatml": CHATML,
    "qwen3-tools": PLAIN_TOOLS,
    # As DeepSeek's, which joins arguments to a text: they are expected to be one already.
    "text-arguments": TOOLS.replace("ARGUMENTS", "call.function.arguments").replace("OPENED", ""),
    # As Qwen3-Thinking's, whose generation prompt opens the block.
    "thinking": PLAIN_TOOLS.replace(
        "assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}"
    ),
    # As Llama 3.1's, which says nothing beside a call, and shows one of them.
    "one-call": PLAIN_TOOLS.replace(
        "{{ said.lstrip('\n') }}{% for call in m.tool_calls or [] %}",
        "{% if not m.tool_calls %}{{ said.lstrip('\n') }}{% endif %}"
        "{% for call in (m.tool_calls or [])[:1] %}",
    ),
    "qwen2.5": QWEN25 + CHATML,
    # Earlier turns lose their thinking; the last one always shows a (perhaps empty) block.
    "qwen3": (
        "{% for m in messages %}"
        "{% if m.role == 'assistant' %}"
        "{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') "
        "if '</think>' in m.content else '' %}"
        "{{ '<|im_start|>assistant\n' }}"
        "{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
        "{{ answer + '<|im_end|>\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim"
        " + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
        " + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    # No generation prompt at all; the system text joins the first question.
    "mistral": (
        "{% set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.index0 < 2 else '')"
        " + m.content + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
}
SPECIALS = [
    *("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
]
CORPUS = [
    "The band recorded a slow waltz in 1974.\n\nIt opens the second side.\n\n\nGood answer!",
    "system user assistant model\n\nquestion and answer, naïve and über 🎵.\n\n",
    "- one\n- two\n\n- three\n",
] * 20


def write_tokenizer(
    folder: Path, template: str | None, *, metaspace: str | None = None, added: tuple[str, ...] = ()
) -> Path:
    """A BPE tokenizer with every special token above, as `save_pretrained` writes it.

    Byte-level, or Llama-like with the given `prepend_scheme` of its Metaspace; `added` are further
    tokens that are matched whole and not special.
    """
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Raw(models.BPE(unk_token="<unk>"))
    # A run of line ends is one token in places, so that "\n" + "\nHi" merges across an edge.
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if metaspace is not None:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace)
        raw.decoder = decoders.Metaspace(prepend_scheme=metaspace)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    if template is not None:
        fast.chat_template = template
    fast.add_tokens(list(added))
    fast.save_pretrained(folder)
    return folder


def write_sentencepiece(folder: Path, *, markers: bool) -> Path:
    """A small SentencePiece BPE model, with ChatML markers (of either kind) or without."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.split("\n") if line),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        control_symbols=["<|im_start|>"] if markers else [],
        user_defined_symbols=["<|im_end|>"] if markers else [],
        minloglevel=2,
    )
    return folder
