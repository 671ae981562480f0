"""llama-server in a few lines: llama.cpp's own server, out of xllamacpp, with the options that
graftlab gives it.
"""

from __future__ import annotations

import argparse
import signal

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("model", "host", "lora", "cache-type-k", "cache-type-v", "flash-attn"):
        parser.add_argument(f"--{name}")
    for name in ("port", "ctx-size", "parallel", "threads", "cache-ram"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("swa-full", "no-warmup", "jinja"):
        parser.add_argument(f"--{name}", action="store_true", required=True)
    asked = parser.parse_args()
    assert (asked.cache_type_k, asked.cache_type_v, asked.flash_attn) == ("f32", "f32", "off")
    made = xllamacpp.CommonParams()
    made.model.path, made.hostnames, made.port = asked.model, [asked.host], asked.port
    made.n_ctx, made.n_parallel, made.warmup = asked.ctx_size, asked.parallel, False
    made.cache_type_k = made.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    made.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    made.use_jinja, made.swa_full, made.fit_params = True, True, False
    made.cache_ram_mib, made.cpuparams.n_threads = asked.cache_ram, asked.threads
    if asked.lora:
        made.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(asked.lora)]
    running = xllamacpp.Server(made)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        del running


if __name__ == "__main__":
    main()
