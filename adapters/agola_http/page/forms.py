"""Handlers of the page's forms: sign in and out, stop, restart and approve."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import Response

from agola_core.errors import BadRequestError, ForbiddenError
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import RunPhase
from agola_http.access import sessions
from agola_http.access.control import is_foreign
from agola_http.access.principals import Principal
from agola_http.page.area import RUN, TASK, PageArea, for_people, shows, takes_form
from agola_http.page.render import form, page, redirect
from agola_http.server.endpoints import Call


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

    @takes_form(f"{RUN}/restart")
    @for_people
    def restart(self, call: Call) -> Response:
        """Restart a run and show the new one."""
        start = form(call.upload).get("from")
        if start not in {"start", "failed"}:
            raise BadRequestError("restart from 'start' or from 'failed'")
        request = RunCreateRequest(run_id=call.path_params["run_id"], from_start=start == "start")
        with self._state.backend.gate.enter() as service:
            bundle = service.create_run(request)
        return redirect(f"/page/runs/{quote(bundle.run.id)}")

    @takes_form(f"{TASK}/approve")
    @for_people
    def approve(self, call: Call) -> Response:
        """Approve a task."""
        with self._state.backend.gate.enter() as service:
            service.approve_task(call.path_params["run_id"], call.path_params["task_id"])
        return redirect(f"/page/runs/{quote(call.path_params['run_id'])}")


def _check_own(call: Call) -> None:
    """Refuse a form that a page of another site sends: it would sign its visitor in as somebody else, or out."""
    if is_foreign(call.headers):
        raise ForbiddenError("pages of another site do not sign anybody in or out here")
