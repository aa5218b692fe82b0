"""Handlers of the page's forms: sign in and out, stop, restart, delete and approve."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from starlette.responses import Response

from agola_core.errors import BadRequestError, ForbiddenError
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import RunPhase
from agola_core.runservice.state.secrets import HIDDEN
from agola_http.access import sessions
from agola_http.access.control import is_foreign
from agola_http.access.principals import Principal
from agola_http.page.area import RUN, TASK, PageArea, for_people, shows, takes_form
from agola_http.page.render import form, page, redirect
from agola_http.page.views import view_run
from agola_http.server.endpoints import Call

_NAME = re.compile(r"[^\s=\x00]+")
_VALUE = re.compile(r"[^\r\n\x00]*")


class Forms(PageArea):
    """Handlers of the page's forms; each leads back to a page."""

    @shows("/page/login")
    def login(self, call: Call) -> Response:
        """Ask for a token."""
        return page("login.html", {"area": "", "signed_in": False, "wrong": call.flag("wrong")})

    @takes_form("/page/login")
    def sign_in(self, call: Call) -> Response:
        """Take a token and give a session for it: a cookie that only this site's own pages send."""
        _check_own(call)
        session = self._state.access.sign_in(Principal.CLIENT, form(call.upload).get("token", ""))
        if session is None:
            return redirect("/page/login?wrong")
        return sessions.keep(redirect("/"), session, secure=call.secure)

    @takes_form("/page/logout")
    def sign_out(self, call: Call) -> Response:
        """Forget the session."""
        _check_own(call)
        return sessions.keep(redirect("/page/login"), "", secure=call.secure)

    @takes_form(f"{RUN}/stop")
    @for_people
    def stop(self, call: Call) -> Response:
        """Stop a run, or cancel it before it has begun."""
        run_id = call.path_params["run_id"]
        with self._state.backend.gate.enter() as service:
            if service.get_run(run_id).run.phase is RunPhase.QUEUED:
                service.change_run_phase(run_id, RunPhase.CANCELLED)
            else:
                service.stop_run(run_id)
        return redirect(f"/page/runs/{quote(run_id)}")

    @shows(f"{RUN}/restart")
    @for_people
    def ask_restart(self, call: Call) -> Response:
        """Ask for the variables of a restart."""
        with self._state.backend.gate.enter() as service:
            bundle = service.get_run(call.path_params["run_id"])
        known = bundle.run_config.environment
        shown = {name: value for name, value in known.items() if _can_be_written(name, value)}
        return self._page(
            call,
            "restart.html",
            "runs",
            run=view_run(bundle.run, datetime.now(UTC)),
            environment="\n".join(f"{name}={value}" for name, value in sorted(shown.items())),
            left_out=sorted(set(known) - set(shown)),
        )

    @takes_form(f"{RUN}/restart")
    @for_people
    def restart(self, call: Call) -> Response:
        """Restart a run, with other variables where the form has them, and show the new one."""
        fields = form(call.upload)
        start = fields.get("from")
        if start not in {"start", "failed"}:
            raise BadRequestError("restart from 'start' or from 'failed'")
        environment = _variables(fields["environment"]) if "environment" in fields else None
        request = RunCreateRequest(
            run_id=call.path_params["run_id"], from_start=start == "start", environment=environment
        )
        with self._state.backend.gate.enter() as service:
            bundle = service.create_run(request)
        return redirect(f"/page/runs/{quote(bundle.run.id)}")

    @shows(f"{RUN}/delete")
    @for_people
    def ask_delete(self, call: Call) -> Response:
        """Ask whether a run is to be deleted."""
        with self._state.backend.gate.enter() as service:
            bundle = service.get_run(call.path_params["run_id"])
        return self._page(call, "delete.html", "runs", run=view_run(bundle.run, datetime.now(UTC)))

    @takes_form(f"{RUN}/delete")
    @for_people
    def delete(self, call: Call) -> Response:
        """Delete a finished run and show those that are left of its group."""
        run_id = call.path_params["run_id"]
        with self._state.backend.gate.enter() as service:
            group = service.get_run(run_id).run.group
            service.delete_run(run_id)
        return redirect("/?" + urlencode({"group": group}))

    @takes_form(f"{TASK}/approve")
    @for_people
    def approve(self, call: Call) -> Response:
        """Approve a task."""
        with self._state.backend.gate.enter() as service:
            service.approve_task(call.path_params["run_id"], call.path_params["task_id"])
        return redirect(f"/page/runs/{quote(call.path_params['run_id'])}")


def _can_be_written(name: str, value: str) -> bool:
    """Return whether a variable comes back from a form's line as it is."""
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value)) and HIDDEN not in value


def _variables(text: str) -> dict[str, str]:
    """Return variables that are written one a line, as NAME=VALUE.

    Raises:
        BadRequestError: A line is not written so, or a name comes twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.replace("\r", "").split("\n"), 1):
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise BadRequestError(f"line {number} of the variables is not NAME=VALUE: {line[:80]!r}")
        if name.strip() in found:
            raise BadRequestError(f"line {number} of the variables names {name.strip()[:80]} again")
        found[name.strip()] = value
    return found


def _check_own(call: Call) -> None:
    """Refuse a form that a page of another site sends: it would sign its visitor in as somebody else, or out."""
    if is_foreign(call.headers):
        raise ForbiddenError("pages of another site do not sign anybody in or out here")
