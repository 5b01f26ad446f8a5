"""The artifacts that the server keeps: uploads, versions, aliases."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, final

from wandb_server.answers import artifact_node, artifact_page, page, run_info
from wandb_server.records import Json, RefusedError, ServedArtifact, ServedRun, Variables, timestamp

if TYPE_CHECKING:
    FileURL = Callable[..., str]


@final
class Artifacts:
    """All artifacts, and the content of their files."""

    def __init__(self, runs: Mapping[tuple[str, str, str], ServedRun], file_url: FileURL) -> None:
        """`runs` are credited with what they log; `file_url` says where the parts of a path lie."""
        self.by_id: dict[str, ServedArtifact] = {}
        self.manifests: dict[str, bytes] = {}
        """As uploaded, by artifact."""
        self.blobs: dict[str, bytes] = {}
        """The files' content, by MD5 in hexadecimal."""
        self._runs = runs
        self._file_url = file_url
        self._ids_of_clients: dict[str, str] = {}
        self.operations: Mapping[str, Callable[[Variables], Json]] = {
            "ArtifactType": self._type,
            "CreateArtifact": self._create,
            "CreateArtifactManifest": self._create_manifest,
            "CreateArtifactFiles": self._create_files,
            "CommitArtifact": self._commit,
            "UseArtifact": self._use,
            "ClientIDMapping": lambda v: {
                "clientIDMapping": {"serverID": self._ids_of_clients[v["clientID"]]}
            },
            "ArtifactByID": lambda v: {"artifact": artifact_node(self.by_id[v["id"]])},
            "ArtifactMembershipByName": self._by_name,
            "ProjectArtifacts": self._list,
            "ArtifactCreatedBy": self._created_by,
            "ArtifactUsedBy": self._used_by,
            "FetchArtifactManifest": self._fetch_manifest,
            "GetArtifactMembershipFileUrls": self._file_urls,
        }

    def inputs_of(self, run: ServedRun) -> list[ServedArtifact]:
        """Return what a run declared as its input."""
        return [artifact for artifact in self.by_id.values() if run.id in artifact.used_by]

    def _versions(self, entity: str, project: str, name: str) -> list[ServedArtifact]:
        """Return the committed versions of one collection, by number."""
        place = (entity, project, name)
        found = {
            one.version: one
            for one in self.by_id.values()
            if (one.entity, one.project, one.name) == place and one.version is not None
        }
        return [found[version] for version in sorted(found)]

    def _create(self, v: Variables) -> Json:
        """Begin a version, or find the one that has the same content: W&B makes no second one."""
        given: Variables = v.get("input") or v
        entity, project, kind = (str(given[key]) for key in ("entityName", "projectName", "artifactTypeName"))
        name = str(given.get("artifactCollectionName") or given["artifactCollectionNames"][0])
        requested: list[Json] = given.get("aliases") or []
        aliases = [str(item["alias"]) for item in requested]
        versions = self._versions(entity, project, name)
        artifact = next((one for one in versions if one.digest == given["digest"]), None)
        if artifact is None:
            artifact = ServedArtifact(
                id=f"artifact-{len(self.by_id) + 1}",
                entity=entity,
                project=project,
                type=kind,
                name=name,
                digest=given["digest"],
                description=given.get("description"),
                metadata=json.loads(given.get("metadata") or "{}"),
                requested_aliases=aliases,
                created_by=given.get("runName"),
            )
            self.by_id[artifact.id] = artifact
        else:
            self._publish(artifact, aliases, given.get("runName"))
        self._ids_of_clients[str(given.get("clientID"))] = artifact.id
        latest = {"id": versions[-1].id, "versionIndex": versions[-1].version} if versions else None
        node = {
            "id": artifact.id,
            "state": artifact_node(artifact)["state"],
            "artifactSequence": {"id": f"sequence-{name}", "latestArtifact": latest},
        }
        return {"createArtifact": {"artifact": node}}

    def _publish(self, artifact: ServedArtifact, aliases: Iterable[str], run_id: str | None) -> None:
        """Credit the run, and move aliases: each points at one version of a collection.

        A run that logs what another made has it among its outputs, as the client's `Run.log_artifact` says;
        `created_by` stays.
        """
        for alias in aliases:
            for other in self._versions(artifact.entity, artifact.project, artifact.name):
                other.aliases = [name for name in other.aliases if name != alias]
            artifact.aliases.append(alias)
        run = self._runs.get((artifact.entity, artifact.project, str(run_id)))
        if run is not None and artifact not in run.artifacts:
            run.artifacts.append(artifact)

    def _create_manifest(self, v: Variables) -> Json:
        url = self._file_url("manifest", v["artifactID"])
        file = {"id": f"file-{v['artifactID']}", "uploadUrl": url, "uploadHeaders": list[str]()}
        made = {"id": f"manifest-{v['artifactID']}", "file": file}
        return {"createArtifactManifest": {"artifactManifest": made}}

    def _create_files(self, v: Variables) -> Json:
        edges: list[Json] = []
        for spec in v["input"]["artifactFiles"]:
            blob = _blob_name(spec["md5"])
            node = {
                "storagePath": blob,
                "artifact": {"id": spec["artifactID"]},
                "uploadUrl": None if blob in self.blobs else self._file_url("blob", blob),
                "uploadHeaders": list[str](),
                "uploadMultipartUrls": None,
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit(self, v: Variables) -> Json:
        artifact = self.by_id[v["artifactID"]]
        if artifact.version is None:
            artifact.manifest = json.loads(self.manifests[artifact.id])
            artifact.files = {
                path: self.blobs[_blob_name(entry["digest"])]
                for path, entry in artifact.manifest["contents"].items()
                if "ref" not in entry
            }
            artifact.version = len(self._versions(artifact.entity, artifact.project, artifact.name))
            aliases = dict.fromkeys(["latest", *artifact.requested_aliases])
            self._publish(artifact, aliases, artifact.created_by)
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def _use(self, v: Variables) -> Json:
        given: Variables = v.get("input") or v
        artifact = self.by_id[given["artifactID"]]
        artifact.used_by = [*dict.fromkeys([*artifact.used_by, str(given["runName"])])]
        return {"useArtifact": {"artifact": artifact_node(artifact)}}

    def _named(self, v: Variables) -> ServedArtifact | None:
        """Return the version that a query names, as in `model:v3` or `model:best`."""
        name, _, version = str(v["name"]).partition(":")
        versions = self._versions(v["entity"], v["project"], name)
        return next((one for one in versions if version in (f"v{one.version}", *one.aliases)), None)

    def _by_name(self, v: Variables) -> Json:
        artifact, member = self._named(v), None
        if artifact is not None:
            node = artifact_node(artifact)
            member = {
                **{key: node[key] for key in ("id", "versionIndex", "createdAt", "aliases")},
                "artifact": node,
                "artifactCollection": node["artifactSequence"],
            }
        return {"project": {"artifactCollectionMembership": member}}

    def _type(self, v: Variables) -> Json:
        artifact = self._named(v)
        node = None if artifact is None else {"artifactType": {"name": artifact.type}}
        return {"project": {"artifact": node}}

    def _list(self, v: Variables) -> Json:
        """Return the versions of a collection, the newest first; null where there is no such one."""
        if json.loads(v.get("filters") or "{}") != {"state": "COMMITTED"}:
            raise RefusedError(400, f"the test server does not understand the filters {v['filters']}")
        versions = self._versions(v["entity"], v["project"], v["collection"])[::-1]
        collection = None
        if versions and versions[0].type == v["type"]:
            collection = {"__typename": "ArtifactSequence", **artifact_page(versions, v)}
        return {"project": {"artifactType": {"artifactCollection": collection}}}

    def _created_by(self, v: Variables) -> Json:
        """Return the run that made a version; what a run put in as its input was made by a user."""
        artifact = self.by_id[v["id"]]
        run = self._runs.get((artifact.entity, artifact.project, str(artifact.created_by)))
        return {"artifact": {"createdBy": {"__typename": "User"} if run is None else run_info(run)}}

    def _used_by(self, v: Variables) -> Json:
        artifact = self.by_id[v["id"]]
        runs = [run for run in self._runs.values() if run.id in artifact.used_by]
        return {"artifact": {"usedBy": {"edges": [{"node": run_info(run)} for run in runs]}}}

    def _fetch_manifest(self, v: Variables) -> Json:
        file = {"directUrl": self._file_url("manifest", v["id"])}
        return {"artifact": {"currentManifest": {"file": file}}}

    def _file_urls(self, v: Variables) -> Json:
        versions = self._versions(v["entity"], v["project"], v["collection"])
        artifact = next(one for one in versions if v["alias"] in (f"v{one.version}", *one.aliases))
        nodes = [
            file_node(path, content, self._file_url("blob", _md5(content).hex()))
            for path, content in artifact.files.items()
        ]
        member = {"files": page(nodes, v.get("cursor"), v.get("perPage"))}
        collection = {"__typename": "ArtifactSequence", "artifactMembership": member}
        return {"project": {"artifactCollection": collection}}


def file_node(name: str, content: bytes, url: str) -> Json:
    """Return a file that can be downloaded."""
    return {
        "__typename": "File",
        "id": name,
        "name": name,
        "sizeBytes": len(content),
        "md5": base64.b64encode(_md5(content)).decode(),
        "mimetype": "",
        "updatedAt": timestamp(),
        "url": url,
        "directUrl": url,
    }


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _blob_name(digest: str) -> str:
    """Return a manifest's base64 MD5 in hexadecimal, which is safe in a URL."""
    return base64.b64decode(digest).hex()
