"""AdamW for bf16 weights that loses nothing: an fp32 weight kept in two halves of 16 bits.

    fp32 weight    s eeeeeeee mmmmmmm | mmmmmmmmmmmmmmmm
                   parameter (bf16)     remainder (int16)

A bf16 weight near 1 moves in steps of 2**-7; an update of 1e-4 rounds to nothing, for ever. Here
the parameter is the weight rounded to bf16, which the model computes with, and the remainder is
what rounding took away, as a difference of bit patterns. Together they are the fp32 weight, so
the update is that of fp32 training at four bytes a weight (the idea of Split-SGD, arXiv
2005.04680). Moments are fp32: a second moment decaying by 0.001 a step would stall in bf16 too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SplitAdamW(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) whose bf16 parameters carry the lower half of an fp32 weight."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
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

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.dtype == torch.bfloat16
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["remainder"] = torch.zeros_like(parameter, dtype=torch.int16)
        state["step"] += 1
        grad, (beta1, beta2) = parameter.grad.float(), group["betas"]
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        corrected = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
        corrected.sqrt_().add_(group["eps"])

        weight = join(parameter, state["remainder"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        pace = group["lr"] / (1 - beta1 ** state["step"])
        weight.addcdiv_(state["exp_avg"], corrected, value=-pace)
        rounded, state["remainder"] = split(weight)
        parameter.copy_(rounded)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore without PyTorch's cast of every state tensor to the parameter's dtype."""
        saved = state_dict["state"]
        super().load_state_dict(state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            for name in ("exp_avg", "exp_avg_sq", "remainder") if index in saved else ():
                self.state[parameter][name] = saved[index][name].to(parameter.device).clone()


def join(parameter: Tensor, remainder: Tensor) -> Tensor:
    """The fp32 weight of a bf16 parameter and its int16 remainder."""
    upper = parameter.detach().view(torch.int16).to(torch.int32) << 16
    return (upper + remainder).view(torch.float32)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest bf16 value of an fp32 weight, and the int16 remainder that gives it back."""
    rounded = weight.to(torch.bfloat16)
    upper = rounded.view(torch.int16).to(torch.int32) << 16
    # A tie rounded down leaves 2**15, one more than int16 holds: the clamp costs one fp32 bit.
    remainder = (weight.view(torch.int32) - upper).clamp_(max=2**15 - 1)
    return rounded, remainder.to(torch.int16)
