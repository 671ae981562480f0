"""AdamW for bf16 weights that keeps what rounding would swallow.

A bf16 weight near 1 moves in steps of 2**-7; an update of 1e-4 rounds to nothing, for ever. Each
weight is therefore kept as two bf16 numbers, `weight + remainder`, whose sum carries about 16 bits
of mantissa (Kahan's compensated summation; for this use see arXiv 2010.06192). The model
computes with `weight` alone. Moments are fp32: a second moment decaying by 0.001 a step would
stall in bf16 for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class CompensatedAdamW(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) on parameters of any floating dtype, exact below their resolution.

    Equal to `torch.optim.AdamW` on fp32 parameters; on bf16 ones the effective weight is
    `parameter + state["remainder"]`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update; returns the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["remainder"] = torch.zeros_like(parameter)
        state["step"] += 1
        assert parameter.grad is not None
        grad, (beta1, beta2) = parameter.grad.float(), group["betas"]
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        corrected = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])

        weight = parameter.float() + state["remainder"].float()
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(state["exp_avg"], corrected, value=-group["lr"] / (1 - beta1 ** state["step"]))
        parameter.copy_(weight)
        state["remainder"].copy_(weight - parameter.float())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore without PyTorch's cast of every state tensor to the parameter's dtype."""
        saved = state_dict["state"]
        super().load_state_dict(state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            for name in ("exp_avg", "exp_avg_sq"):
                if index in saved:
                    self.state[parameter][name] = saved[index][name].to(parameter.device).clone()
