"""Vertex functions that tests share."""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn

import vertexflow as vf


class BinaryTreeLSTM(vf.VertexFunction):
    """The example of the README."""

    def __init__(self, embed_dim, hidden):
        super().__init__(state={"h": hidden, "c": hidden})
        self.w = nn.Linear(embed_dim, 3 * hidden)
        self.u = nn.Linear(2 * hidden, 5 * hidden, bias=False)

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        x = self.w(v.pull("x"))
        i, o, u, fl, fr = self.u(torch.cat([left.h, right.h], -1)).chunk(5, -1)
        xi, xo, xu = x.chunk(3, -1)
        c = torch.sigmoid(i + xi) * torch.tanh(u + xu) + torch.sigmoid(fl) * left.c + torch.sigmoid(fr) * right.c
        h = torch.sigmoid(o + xo) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h)


class TreeRNN(vf.VertexFunction):
    """For tests to which any function of two children will do: its trace takes a third of the example's time."""

    def __init__(self, embed_dim, hidden):
        super().__init__(state={"h": hidden})
        self.w = nn.Linear(embed_dim, hidden)
        self.u = nn.Linear(2 * hidden, hidden, bias=False)

    def vertex(self, v):
        h = torch.tanh(self.w(v.pull("x")) + self.u(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h)


class FromCode(vf.VertexFunction):
    """A vertex function whose method is given as a function; `parts` are its parameters, buffers and modules."""

    def __init__(self, vertex, state, **parts):
        super().__init__(state=state)
        self.vertex = MethodType(vertex, self)
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
