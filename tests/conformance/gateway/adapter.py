"""Starts real gateways and listeners for the suite: `suite.py --adapter adapter.py` (see README.md).

Cases whose listener stays are served by one listener and a gateway per routing mode. Cases that script an outage
have planes, a listener and a gateway, that nobody else uses. Counters are read through `weir-usage`, a line each way.

Programs: WEIR and WEIR_USAGE, else those of the workspace's debug build.
"""
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
WEIR = os.environ.get("WEIR") or os.path.join(ROOT, "target", "debug", "weir")
USAGE = os.environ.get("WEIR_USAGE") or os.path.join(ROOT, "target", "debug", "weir-usage")
TOKEN, SECRET, OPERATOR = "conformance-token", "conformance-secret", "conformance-operator"
ACTIVE, SUSPENDED = "active", "suspended"


def make(world, options):
    return Processes(world, options)


def toml(value):
    """A TOML value; JSON's strings, numbers and lists are TOML's as well."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")


def fate_of(entry):
    """What a scripted answer asks of our listener."""
    if isinstance(entry, dict):
        if "then" in entry:
            return "slow" if "hang" in entry else fate_of(entry["then"])
        headers = entry.get("headers", {})
        if headers.get("3scale-rejection-reason") == "limits_exceeded" and entry["status"] != 200:
            return "exhausted for ever" if headers.get("3scale-limit-reset") == "-1" else "exhausted"
        return "allow" if entry["status"] == 200 else "away" if entry["status"] >= 429 else "unknown"
    names = {"allow": "allow", "allow_limited": "limited", "limits": "exhausted", "limits_no_reset": "exhausted", "disabled": "disabled",
             "key_invalid": "wrong key", "not_active": "suspended", "error": "away", "drop": "away", "away": "away"}
    return names.get(entry, "unknown")


LIMITS = {"limited": ("week", 1000), "exhausted": ("week", 1), "exhausted for ever": ("eternity", 1), "disabled": ("week", 0)}


class Plane:
    """A listener over a catalog, and gateways."""

    def __init__(self, folder, cases, catalog, routings, gateway_lines=""):
        os.makedirs(folder)
        self.folder, self.cases, self.catalog, self.revision = folder, cases, catalog, 0
        self.ports, self.processes, self.lock, self.states = {}, {}, threading.Lock(), {}
        self.write("secrets.txt", f"suite {SECRET}\n")
        self.put({})
        try:
            self.start_all(routings, gateway_lines)
        except BaseException:
            self.stop()
            raise

    def start_all(self, routings, gateway_lines):
        self.start("listener", 'catalog = "catalog.toml"\nkey_hash_secret_file = "secrets.txt"\nhttp_address = "127.0.0.1:0"\n'
                   '[store]\nkind = "embedded"\nembedded.dir = "store"\n'
                   f'[[gateways]]\nid = "suite"\nenvironment = "production"\ntoken = "{TOKEN}"\n', "grpc_address")
        for routing in routings:
            self.start(routing, f'routing = "{routing}"\nlisteners = ["http://127.0.0.1:{self.ports["listener"]}"]\n'
                       f'token = "{TOKEN}"\noperator_token = "{OPERATOR}"\n{gateway_lines}', "address")

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)

    def put(self, states):
        """Writes the catalog; `states` of cases differ from how they began."""
        self.revision += 1
        self.write("catalog.toml", f"revision = {self.revision}\n[[providers]]\nname = \"Suite\"\n" +
                   "".join(self.catalog(case, states.get(case.id)) for case in self.cases))

    def start(self, name, lines, address):
        port, telemetry = suite.free_port(), suite.free_port()
        self.ports[name], self.ports[name, "telemetry"] = port, telemetry
        self.write(f"{name}.toml", f'{address} = "127.0.0.1:{port}"\ntelemetry_address = "127.0.0.1:{telemetry}"\n{lines}')
        self.run(name)

    def run(self, name):
        role = "listener" if name == "listener" else "gateway"
        with open(os.path.join(self.folder, f"{name}.log"), "ab") as log:
            command = [WEIR, role, "--config", os.path.join(self.folder, f"{name}.toml")]
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 30
        while not self.ready(name):
            if time.monotonic() > until or self.processes[name].poll() is not None:
                with open(os.path.join(self.folder, f"{name}.log")) as log:
                    raise SystemExit(f"{name} does not start:\n{log.read()}")
            time.sleep(0.02)

    def get(self, name, path):
        """None while there is no answer of success."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name, 'telemetry']}{path}", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def explain(self, name, wire):
        """What a gateway says that it will do with these bytes."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[name, 'telemetry']}/explain", data=wire, method="POST",
                                         headers={"Authorization": f"Bearer {OPERATOR}", "Content-Type": "application/http"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def ready(self, name):
        return self.get(name, "/readyz") is not None

    def metrics_say(self, name, line):
        """Waits for a line of a role's metrics."""
        until = time.monotonic() + 30
        while not re.search(f"^{line}$", self.get(name, "/metrics") or "", re.M):
            if time.monotonic() > until:
                raise SystemExit(f"{name} in {self.folder} does not come to say {line}")
            time.sleep(0.02)

    def end(self, name):
        if process := self.processes.pop(name, None):
            process.kill()
            process.wait()

    def back(self):
        """Has the listener run, and the gateways know it."""
        if "listener" in self.processes:
            return
        self.run("listener")
        for name in set(self.processes) - {"listener"}:
            self.metrics_say(name, "weir_gateway_listeners_up 1")
            # What passed in the outage is told first.
            self.metrics_say(name, "weir_gateway_outage_reports_waiting 0")

    def change(self, case, state):
        """Changes a case's applications, and returns when the listener decides by it."""
        with self.lock:
            if self.states.get(case.id) == state:
                return
            self.states[case.id] = state
            self.put(self.states)
            self.metrics_say(case.routing, f"weir_gateway_configuration_revision {self.revision}")

    def stop(self):
        for name in list(self.processes):
            self.end(name)


class Processes(suite.Adapter):
    """The adapter."""

    def start(self, cases):
        self.folder, self.lock = tempfile.mkdtemp(), threading.Lock()
        self.helper = subprocess.Popen([USAGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.planes, stays = {}, []
        for case in cases:
            fates = {self.fate(case, step) for step in range(len(case.backend))}
            if not fates & {"away", "slow"}:
                stays.append(case)
                continue
            # A slow listener is waited for.
            lines = "[limits]\nauthorise_timeout_ms = 5_000\n" if "slow" in fates else ""
            self.planes[case.id] = Plane(os.path.join(self.folder, case.id), [case], self.catalog, [case.routing], lines)
        if stays:
            main = Plane(os.path.join(self.folder, "main"), stays, self.catalog, suite.ROUTINGS)
            self.planes.update((case.id, main) for case in stays)
        self.baseline = {case.id: self.exhaust(case) for case in cases}

    def address(self, case):
        return "127.0.0.1", self.planes[case.id].ports[case.routing]

    def fate(self, case, step=0):
        if "backend_at" in case.data:
            return "away"
        return fate_of(case.backend[min(step, len(case.backend) - 1)])

    def before(self, case, step):
        fate, plane = self.fate(case, step), self.planes[case.id]
        if fate == "away":
            plane.end("listener")
        elif fate == "slow":
            pause(plane.processes["listener"], case.backend[min(step, len(case.backend) - 1)]["hang"])
        else:
            plane.back()
            if fate in ("allow", "unknown") and (step or plane.states):
                begins = self.fate(case) in ("allow", "limited")
                if step and (fate == "allow") != begins or case.id in plane.states:
                    plane.change(case, ACTIVE if fate == "allow" else SUSPENDED)

    def foresee(self, case, step, wire):
        """A slow listener is not asked twice: explained before it falls asleep."""
        is_slow = self.fate(case, step) == "slow"
        told = self.planes[case.id].explain(case.routing, wire) if is_slow else None
        self.before(case, step)
        return told if is_slow else self.planes[case.id].explain(case.routing, wire)

    def exhaust(self, case):
        """Uses limits up; what the counters then hold is no usage of the case."""
        if not self.fate(case).startswith("exhausted"):
            return {}
        for index, service in enumerate(case.services):
            for app_id, credentials in self.applications(case, service):
                for metric in metrics(service):
                    self.ask("report", case, index, app_id, credentials["user_key"], metric, "1")
        return self.total(case)

    def usage(self, case):
        self.planes[case.id].back()
        base = self.baseline[case.id]
        return {metric: n - base.get(metric, 0) for metric, n in sorted(self.total(case).items()) if n > base.get(metric, 0)}

    def total(self, case):
        total = {}
        for index, service in enumerate(case.services):
            for app_id, _ in self.applications(case, service):
                for metric, n in self.ask("usage", case, index, app_id).items():
                    total[metric] = total.get(metric, 0) + n
        return total

    def ask(self, verb, case, index, *words):
        address = f"127.0.0.1:{self.planes[case.id].ports['listener']}"
        with self.lock:
            self.helper.stdin.write(" ".join([verb, address, TOKEN, case.service_id(index), *words]) + "\n")
            self.helper.stdin.flush()
            answer = json.loads(self.helper.stdout.readline())
        if "no such application" in answer.get("error", ""):
            return {}
        if "error" in answer:
            raise SystemExit(f"{case.id}: {answer['error']}")
        return answer

    def applications(self, case, service):
        """(id, credentials) of the case's applications that the catalog can tell of and this service can find."""
        found = []
        known = [credentials for credentials, _ in self.provision(case)] or [{"user_key": "k"}]
        for number, credentials in enumerate(known):
            if (service["credentials"]["mode"] == "user_key") != ("user_key" in credentials):
                continue
            app_id = credentials.get("app_id", f"app-{number}")
            if app_id.isascii() and app_id.isprintable() and " " not in app_id:
                found.append((app_id, credentials))
        return found

    def catalog(self, case, state):
        """The case's services as a piece of a catalog."""
        names = case.names(self.world)
        return "".join(self.service(case, index, names, state) for index in range(len(case.services)))

    def service(self, case, index, names, state):
        service, fate = case.services[index], self.fate(case)
        credentials = service["credentials"]
        mode = {"user_key": "user_key", "app_id": "app_id_and_key"}[credentials["mode"]]
        proxy = {"hosts": suite.fill(service["hosts"], names), "api_backend": suite.fill(service["api_backend"], names),
                 "credentials_location": credentials["in"], "credential_names": credentials["names"],
                 # Where the suite says more than we have, it means our default.
                 "when_away": service["when_away"] if service["when_away"] in ("allow_known", "allow") else None,
                 "secret_token": service["secret_token"], "host_rewrite": suite.fill(service["host_rewrite"], names),
                 "errors": {suite.ERRORS[name]: refusal(error) for name, error in service["errors"].items()}}
        period, most = LIMITS.get(fate, (None, None))
        limits = [{"metric": metric, "period": period, "max": most} for metric in metrics(service)] if period else []
        text = [f"[[providers.services]]\nid = {toml(case.service_id(index))}\ncredentials = {toml(mode)}",
                f"metrics = {toml([{'name': metric} for metric in own_metrics(service)])}",
                f"mapping_rules = {toml([rule(r) for r in service['rules'] if r['delta'] > 0])}",
                f"backends = {toml([backend(b, names) for b in service['backends']])}",
                f"proxy = {toml({k: v for k, v in proxy.items() if v})}",
                f"plans = [{toml({'id': 'plan', 'limits': limits})}]"]
        if state or fate != "unknown":
            fate = state or fate
            text.append(f"applications = {toml([self.application(fate, *a) for a in self.applications(case, service)])}")
        return "\n".join(text) + "\n"

    @staticmethod
    def application(fate, app_id, credentials):
        application = {"id": app_id, "plan": "plan", "state": "suspended" if fate == "suspended" else "active"}
        wrong = "other" if fate == "wrong key" else ""
        if "user_key" in credentials:
            application["user_key"] = hashed(credentials["user_key"] + wrong)
        else:
            application["app_keys"] = [hashed(credentials["app_key"] + wrong)]
        return application

    def stop(self):
        for plane in set(self.planes.values()):
            plane.stop()
        self.helper.stdin.close()
        self.helper.wait()
        shutil.rmtree(self.folder)


def hashed(key):
    """As a catalog holds keys: so they may have any bytes."""
    return "hmac:suite:" + hmac.new(SECRET.encode(), key.encode(), hashlib.sha256).hexdigest()


def metric_name(name):
    """A catalog's metric names are narrower than a URL's."""
    return re.sub(r"[^\w.\-/]", "_", name)


def own_metrics(service):
    return sorted({metric_name(r["metric"]) for r in service["rules"]}) or ["hits"]


def metrics(service):
    return own_metrics(service) + [name for backend in service["backends"] for name in own_metrics(backend)]


def backend(data, names):
    return {"id": f"backend-{data['owner']}", "mount": data["mount"], "api_backend": suite.fill(data["api_backend"], names),
            "metrics": [{"name": name} for name in own_metrics(data)], "mapping_rules": [rule(r) for r in data["rules"]]}


def rule(data):
    query = "&".join(f"{name}={value}" for name, value in data["query"].items())
    joint = "" if not query else "&" if "?" in data["pattern"] else "?"
    return {"method": data["method"], "pattern": data["pattern"] + joint + query,
            "metrics": {metric_name(data["metric"]): data["delta"]}, "last": data["last"]}


def refusal(error):
    return {{"type": "content_type"}.get(key, key): value for key, value in error.items()}


def pause(process, seconds):
    """The process does nothing for a while."""
    process.send_signal(signal.SIGSTOP)
    threading.Timer(seconds, process.send_signal, [signal.SIGCONT]).start()
