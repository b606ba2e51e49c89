"""A server that summarizes squared errors for real, and breaks where a test wants it to."""

# ruff: noqa: N802 - gRPC names methods as the contract does

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import grpc
import numpy as np
from google.rpc import error_details_pb2

from losswire import summaries
from losswire.v1 import loss_info_pb2, loss_service_pb2, server_info_pb2, summary_pb2, tensor_pb2
from losswire.wire import decode_tensor
from tests.support.scripted import Scripted, fail

_FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32


def _loss(name: str, *, separable: bool) -> loss_info_pb2.LossInfo:
    types = loss_info_pb2.DataTypeList(data_types=[_FLOAT32])
    return loss_info_pb2.LossInfo(
        name=name,
        kind=loss_info_pb2.LOSS_KIND_LOSS,
        separable=separable,
        inputs=[
            loss_info_pb2.InputInfo(name=each, data_types=[_FLOAT32], required=True)
            for each in ("input", "target")
        ],
        layouts=[
            loss_info_pb2.LayoutInfo(
                name="elementwise",
                inputs={"input": "N", "target": "N"},
                values="N",
                data_types={"input": types, "target": types},
            )
        ],
    )


LOSSES = (_loss("mse_loss", separable=True), _loss("coupled_loss", separable=False))
"""The losses of the server; both are squared errors."""


FaultKind = Literal["abort", "drain", "expire", "hang", "end", "refuse"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in one call."""

    kind: FaultKind
    """The call ends with UNAVAILABLE, without a report or after one; it ends because no batch came
    for long; nothing comes any more; it ends without a final report; or it ends with an error that
    no other try would change."""
    after: int
    """The number of batches that the call counts before."""


@dataclass
class Summarizing(Scripted):
    """Summarizes squared errors; the n-th call breaks as the n-th fault says."""

    faults: Mapping[int, Fault] = field(default_factory=dict)
    losses: tuple[loss_info_pb2.LossInfo, ...] = LOSSES
    limits: server_info_pb2.Limits = field(
        default_factory=lambda: server_info_pb2.Limits(
            max_message_bytes=100_000, preferred_chunk_bytes=4_000
        )
    )
    headers: list[summary_pb2.SummaryHeader] = field(default_factory=list)
    batches: list[summary_pb2.SummaryBatch] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def SummarizeLosses(
        self,
        requests: Iterator[loss_service_pb2.SummarizeLossesRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.SummarizeLossesResponse]:
        """Summarize, up to the fault of this call."""
        fault = self.faults.get(len(self.headers))
        header = next(requests).header
        self.headers.append(header)
        settings = summaries.Settings(
            loss=header.evaluation.loss,
            options=header.evaluation.options,
            candidates=tuple(each.name for each in header.candidates),
            tables=tuple(tuple(each.columns) for each in header.tables),
            scale=summaries.scale_for(header.relative_accuracy),
            worst=header.worst,
        )
        state = summaries.SummaryState(settings)
        if header.HasField("resume_from"):
            state = summaries.SummaryState.resume(header.resume_from, settings)
        row, counted = header.first_row, 0
        for request in requests:
            if fault is not None and counted == fault.after:
                yield from self._break(fault, state, counted, context)
                return
            rows = _rows(request.batch, header.partition, row)
            self.batches.append(request.batch)
            state.add(rows)
            row += rows.values.shape[1]
            counted += 1
            yield _progress(state, counted)
            if request.batch.report:
                yield _report(state, counted, final=False)
        if fault is not None:
            yield from self._break(fault, state, counted, context)
            return
        yield _report(state, counted, final=True)

    def _break(
        self,
        fault: Fault,
        state: summaries.SummaryState,
        counted: int,
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.SummarizeLossesResponse]:
        match fault.kind:
            case "hang":
                self.released.wait(60)
            case "drain":
                yield _report(state, counted, final=False)
                fail(context, grpc.StatusCode.UNAVAILABLE, "draining")
            case "abort":
                fail(context, grpc.StatusCode.UNAVAILABLE, "gone")
            case "expire":
                request = error_details_pb2.RequestInfo(request_id="one")
                fail(context, grpc.StatusCode.DEADLINE_EXCEEDED, "silent", details=[request])
            case "refuse":
                fail(context, grpc.StatusCode.INVALID_ARGUMENT, "refused")


def _rows(batch: summary_pb2.SummaryBatch, partition: str, first_row: int) -> summaries.Rows:
    own = batch.candidates or [batch]
    shared = {name: decode_tensor(each) for name, each in batch.inputs.items()}
    values = []
    for each in own:
        inputs = {**shared, **{name: decode_tensor(x) for name, x in each.inputs.items()}}
        values.append((inputs["input"].astype(float) - inputs["target"]) ** 2)
    weights = None
    if batch.HasField("sample_weight"):
        weights = decode_tensor(batch.sample_weight).astype(np.float64)
    return summaries.Rows(
        values=np.stack(values),
        weights=weights,
        columns={name: _column(each) for name, each in batch.columns.items()},
        clusters=_column(batch.clusters) if batch.HasField("clusters") else None,
        ids=_column(batch.ids) if batch.HasField("ids") else None,
        partition=partition,
        first_row=first_row,
    )


def _column(message: summary_pb2.Column) -> summaries.Column:
    return summaries.Column(
        decode_tensor(message.codes).astype(np.int64), list(message.labels) or None
    )


def _progress(
    state: summaries.SummaryState, counted: int
) -> loss_service_pb2.SummarizeLossesResponse:
    means, errors = state.progress()
    return loss_service_pb2.SummarizeLossesResponse(
        progress=loss_service_pb2.SummaryProgress(
            batches=counted, rows=state.rows, means=means, standard_errors=errors
        )
    )


def _report(
    state: summaries.SummaryState, counted: int, *, final: bool
) -> loss_service_pb2.SummarizeLossesResponse:
    return loss_service_pb2.SummarizeLossesResponse(
        report=loss_service_pb2.SummaryReport(summary=state.message(), batches=counted, final=final)
    )
