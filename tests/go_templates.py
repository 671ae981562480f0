"""Go's own text/template, given what Ollama gives it: the proof of the templates we write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GO = Path(sys.prefix) / "bin" / "go"
PROGRAM = """package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content, Thinking string }
type Job struct {
	Template string
	Messages []*Message
}

func render(job Job) (string, error) {
	parsed, err := template.New("").Option("missingkey=zero").Parse(job.Template)
	if err != nil {
		return "", err
	}
	var systems []string
	var messages []*Message
	for _, m := range job.Messages {
		if m.Role == "system" {
			systems = append(systems, m.Content)
		}
		if n := len(messages); n > 0 && messages[n-1].Role == m.Role && m.Role != "tool" {
			messages[n-1].Content += "\\n\\n" + m.Content
		} else {
			messages = append(messages, m)
		}
	}
	var out strings.Builder
	err = parsed.Execute(&out, map[string]any{
		"System": strings.Join(systems, "\\n\\n"), "Messages": messages, "Response": "",
		"Tools": nil, "Think": false, "IsThinkSet": false,
	})
	return out.String(), err
}

func main() {
	var jobs []Job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, job := range jobs {
		text, err := render(job)
		if err != nil {
			panic(err)
		}
		texts = append(texts, text)
	}
	json.NewEncoder(os.Stdout).Encode(texts)
}
"""


def build(folder: Path) -> Path:
    """The renderer, compiled offline: 20 CPU seconds."""
    source, program = folder / "main.go", folder / "render"
    source.write_text(PROGRAM, encoding="utf-8")
    made = {"GOCACHE": "cache", "GOPATH": "path", "GOTMPDIR": "", "HOME": ""}
    own = {key: str(folder / name) for key, name in made.items()}
    off = {"GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-p=1"}
    words = [str(GO), "build", "-o", str(program), str(source)]
    done = subprocess.run(words, env={**os.environ, **own, **off}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def render(program: Path, jobs: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> list[str]:
    """What Go makes of (template, messages) each."""
    given = [{"Template": template, "Messages": list(messages)} for template, messages in jobs]
    done = subprocess.run([str(program)], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts: list[str] = json.loads(done.stdout)
    return texts
