"""Puts fixtures into a listener through `weir-publish`, as a control plane would (see README.md).

Every case has services, applications and keys of its own, so one listener serves them all. Usage is counted before
it is answered: nothing has to settle.

Variables: WEIR_PUBLISH, the program, and WEIR_PUBLISH_ARGUMENTS, what it is started with.
"""
import json
import os
import subprocess


def make(options):
    return Publisher()


class Publisher(base):
    def __init__(self):
        command = [os.environ["WEIR_PUBLISH"], *os.environ["WEIR_PUBLISH_ARGUMENTS"].split()]
        self.program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.defaults = {}

    def ask(self, question):
        self.program.stdin.write(json.dumps(question) + "\n")
        self.program.stdin.flush()
        answer = json.loads(self.program.stdout.readline() or '{"error": "weir-publish has ended"}')
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def prepare(self, fixture, serial):
        values = {p: f"key-{serial}-{p}" for p in fixture["providers"]}
        for s, service in fixture["services"].items():
            values[s] = f"{serial}{s}"
            values[f"{s}.token"] = f"token-{serial}-{s}"
            for a in service["applications"]:
                values[a] = f"app-{serial}-{a}"
                values[f"{a}.key"] = f"user-key-{serial}-{a}"
        for token in fixture["dangling_tokens"]:
            values[token] = f"token-{serial}-{token}"
            values.setdefault(fixture["dangling_tokens"][token], f"{serial}ghost")
        firsts = {}
        for s, service in fixture["services"].items():
            firsts.setdefault(service["provider"], s)
        self.defaults = firsts
        services = [self.service(values, fixture, s) for s in fixture["services"]]
        applications = [self.application(values, s, a, application)
                        for s, service in fixture["services"].items() for a, application in service["applications"].items()]
        self.ask({"services": services, "applications": applications})
        return values

    def service(self, values, fixture, s, **changes):
        service = fixture["services"][s]
        p = service["provider"]
        return {**service, **changes, "id": values[s], "provider": values[p], "provider_key": values[p], "token": values[f"{s}.token"],
                "is_default": self.defaults[p] == s, "applications": None}

    def application(self, values, s, a, application, **changes):
        return {**application, **changes, "service": values[s], "id": values[a], "user_key": values[f"{a}.key"]}

    def change(self, values, fixture, step):
        if step["op"] == "service":
            self.ask({"services": [self.service(values, fixture, step["service"], **step["set"])]})
        elif step["op"] == "application":
            for s, service in fixture["services"].items():
                for a, application in service["applications"].items():
                    if a == step["application"]:
                        self.ask({"applications": [self.application(values, s, a, application, **step["set"])]})
        else:
            self.defaults[step["provider"]] = step["service"]
            of_provider = [s for s, service in fixture["services"].items() if service["provider"] == step["provider"]]
            self.ask({"services": [self.service(values, fixture, s) for s in of_provider]})

    def error_codes(self, values, service):
        return self.ask({"errors": values[service]})

    def cleanup(self, values):
        """Takes the services away, so that the catalog does not grow with every case."""
        services = [value for name, value in values.items() if f"{name}.token" in values and "key-" not in value]
        self.ask({"removed": services})
