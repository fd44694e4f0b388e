"""What a function is packaged into, made when a level first needs it: context, files, archives, image, template.

functions/<name> + store → context → root | zips unpacked | image | image + template
                           (a heavy one's endpoint has a context, files and an image too)
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from zipfile import ZipFile

import msgspec

from sampan.contract.errors import SampanError
from sampan.contract.function import FunctionConfig
from sampan.emulation.container import ContainerInstance
from sampan.emulation.endpoint import ContainerEndpoint, Endpoint, ProcessEndpoint
from sampan.emulation.instance import Instance, InstanceError
from sampan.emulation.rie import RieInstance, find_rie, find_sam, free_ports
from sampan.emulation.sam import SamApi
from sampan.packaging.archive import build_archives, this_machine
from sampan.packaging.build import RECORD, base_of
from sampan.packaging.context import BUILD, Context
from sampan.packaging.docker import Engine
from sampan.packaging.endpoint import Contexts, endpoint_base, write_contexts
from sampan.packaging.files import new_folder, replace_file
from sampan.packaging.image import build_image
from sampan.packaging.install import install_code
from sampan.packaging.project import Function, read_function
from sampan.packaging.requirements import GPU, endpoint_extras, runtime_lock
from sampan.packaging.rootfs import Root, installed, make_root
from sampan.packaging.template import ApiKind, ImageArtefact, write_template
from sampan.store.protocol import Store, Version

Level = Literal["rie", "zip", "docker"]
LEVELS: tuple[Level, ...] = ("rie", "zip", "docker")
_CLIENT = ("awslambdaric", "runtime_client*", "simplejson", "snapshot_restore_py*")


class Artefacts:
    """A function of a project, packaged as each level asks.

    Args:
        memory: MB instead of those of its `function.toml`; timeout: seconds instead of those.
        base: image to build on; None: AWS's for the function's Python.
        endpoint_base: image to build the endpoint of a heavy function on; None: Python's own, or Triton.
        key: seals the model, as `sampan package --key` does.
        rie: the emulator's program; sam: the `sam` program; None: looked for.
        say: gets sentences for the person.
    """

    def __init__(
        self,
        project: Path,
        store: Store,
        name: str,
        *,
        memory: int | None = None,
        timeout: int | None = None,
        base: str | None = None,
        endpoint_base: str | None = None,
        key: str | None = None,
        rie: str | None = None,
        sam: str | None = None,
        engine: Engine | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        packaged = read_function(project, name)
        changes = {key: value for key, value in (("memory", memory), ("timeout", timeout)) if value is not None}
        config = _settled(packaged, project / BUILD / packaged.name / RECORD)
        self.function: Function = replace(packaged, config=msgspec.structs.replace(config, **changes))
        self.engine = engine or Engine()
        self._project = project.absolute()
        self._store = store
        self._base = base
        self._endpoint_base = endpoint_base
        self._key = key
        self._rie = rie
        self._sam = sam
        self._say = say

    @property
    def folder(self) -> Path:
        """Where the function is built."""
        return self._project / BUILD / self.function.name

    @cached_property
    def version(self) -> Version:
        """The model's version, as it is in the store."""
        return self._store.find(self.function.config.model)

    @cached_property
    def contexts(self) -> Contexts:
        return write_contexts(self._project, self.function, self._store, self.version, key=self._key, say=self._say)

    @property
    def context(self) -> Context:
        return self.contexts.function

    @property
    def endpoint_context(self) -> Context:
        """Of a heavy function's endpoint.

        Raises:
            InstanceError: the function has none.
        """
        if self.contexts.endpoint is None:
            raise InstanceError(f"{self.function.name} has no endpoint: it runs its model itself")
        return self.contexts.endpoint

    @cached_property
    def root(self) -> Root:
        return host_root(self.context)

    @cached_property
    def unpacked(self) -> Root:
        """The archives of the zip placement, unpacked as Lambda does it, for this machine's Python."""
        folder = _made(self.context, "unpacked", self._unpack)
        return Root(folder / "task", (folder / "task", folder / "opt" / "python", folder / "client"))

    @cached_property
    def image(self) -> str:
        """The packaged image's reference; built unless it is there."""
        self.engine.check()
        base = base_of(self.function, self._base)
        return build_image(self.engine, self.context, base=base, log=self.folder / "build.log").reference

    @cached_property
    def rie(self) -> Path:
        """The emulator's program."""
        return find_rie(self._rie, self._project)

    @cached_property
    def endpoint_image(self) -> str:
        """The reference of its endpoint's image; built unless it is there."""
        self.engine.check()
        base, log = endpoint_base(self.function, self._endpoint_base), self.folder / "build-endpoint.log"
        return build_image(self.engine, self.endpoint_context, base=base, log=log).reference

    @cached_property
    def endpoint_root(self) -> Root:
        """Its endpoint's files for this machine's Python, which has no GPU to bring libraries for."""
        context, config = self.endpoint_context, self.function.config
        lock = self.folder / "endpoint-host.txt"
        extras = (extra for extra in endpoint_extras(config, context.manifest) if extra != GPU)
        replace_file(lock, runtime_lock(self._project, extras).encode())
        target = f"host {sys.version} {os.uname().machine}"
        code = _made(context, "endpoint-code", lambda into: _compile_code(context, into))
        return Root(context.version.parent.absolute(), (code, installed(context, [lock], target)))

    @property
    def whole(self) -> Path:
        """The folder of the version with its weights; Triton's repository has the model alone."""
        own = self.function.config.endpoint.engine == "sampan"
        return (self.endpoint_context.version if own else self.version.folder).absolute()

    def start_endpoint(self, level: Level) -> Endpoint:
        """The endpoint of a heavy function, ready to be asked.

        Raises:
            SampanError: the level is not to be had here, or it does not start; says why.
        """
        if level == "docker":
            return ContainerEndpoint(self.endpoint_context, self.endpoint_image, self.engine, self.key_file)
        (port,) = free_ports(1)
        return ProcessEndpoint(self.endpoint_context, self.endpoint_root, port, self.key_file)

    def starter(
        self, level: Level, memory: int | None = None, variables: Mapping[str, str] | None = None
    ) -> Callable[[], Instance]:
        """What starts an instance; everything that it needs is made before this returns.

        Args:
            memory: MB of this instance; what is packaged is the same for every size.
            variables: of its environment, beside the function's.

        Raises:
            SampanError: the level is not to be had here; says why.
        """
        function = told(self.sized(memory) if memory else self.function, variables or {})
        if level == "docker":
            image = self.image
            return lambda: ContainerInstance(function, image, self.engine, self.key_file)
        rie, root = self.rie, self.root if level == "rie" else self.unpacked
        return lambda: RieInstance(function, root, rie, level, self.key_file)

    def sized(self, memory: int) -> Function:
        """The function with another memory setting, in MB."""
        return replace(self.function, config=msgspec.structs.replace(self.function.config, memory=memory))

    def why_not(self, level: str) -> str:
        """Why a level is not to be had on this machine; empty where it is. Nothing is built for the answer."""
        try:
            self._front(level)
            if level in ("docker", "sam"):
                self.engine.check()
            if level in ("rie", "zip"):
                _ = self.rie
            if level == "sam":
                self._sam_program()
                self._unsealed()
        except SampanError as error:
            return str(error)
        return ""

    def sam_api(self, api: ApiKind = "rest") -> SamApi:
        """A running `sam local start-api` of the image.

        Raises:
            SampanError: no engine, no sam, or it does not start; says where its log is.
        """
        program = self._sam_program()
        self._unsealed()
        template = self.folder / "sam" / f"{api}.json"
        write_template(template, self.function, ImageArtefact(self.image), api=api)
        return SamApi(program, template, self.function, self.engine, self.image)

    @property
    def key_file(self) -> Path | None:
        """The file that opens a sealed model; None where it is not sealed by one."""
        return key_file(self._key)

    def _front(self, level: str) -> None:
        """What levels the function before an endpoint has."""
        config, name = self.function.config, self.function.name
        if config.heavy and level in ("zip", "sam"):
            raise InstanceError(f"level {level} has no SageMaker endpoint behind {name}; choose --level rie or docker")
        if config.placement == "sagemaker-async":
            raise InstanceError(
                f"{name} has placement sagemaker-async, whose endpoint answers into S3, which is not emulated; set "
                'placement = "sagemaker" to try it here'
            )
        if config.heavy and config.endpoint.engine == "triton" and level == "rie":
            raise InstanceError(f"the engine triton of {name} is a container's; choose --level docker")

    def _unsealed(self) -> None:
        if self._key:
            raise InstanceError("sam local cannot give a function the key of a sealed model; choose another level")

    def _unpack(self, into: Path) -> None:
        archives = build_archives(self.context, into / "archives", target=this_machine())
        for archive, folder in ((archives.function, "task"), (archives.layer, "opt")):
            with ZipFile(archive) as file:
                file.extractall(into / folder)
        _link_client(make_root(self.context).path[-1], into / "client")
        shutil.rmtree(into / "archives")

    def _sam_program(self) -> Path:
        program = find_sam(self._project, self._sam)
        if program is None:
            raise InstanceError(
                "there is no program sam: put it on PATH, name it with SAMPAN_SAM, or run scripts/containers"
            )
        return program


def _settled(function: Function, record: Path) -> FunctionConfig:
    """What function.toml says; its placement `auto` as `sampan package` settled it, where it did."""
    if function.config.placement != "auto" or not record.is_file():
        return function.config
    settled = msgspec.json.decode(record.read_bytes()).get("settled", {})
    return msgspec.convert({**msgspec.to_builtins(function.config), **settled}, FunctionConfig)


def told(function: Function, variables: Mapping[str, str]) -> Function:
    """The function with further variables of its environment."""
    environment = {**function.config.environment, **variables}
    return replace(function, config=msgspec.structs.replace(function.config, environment=environment))


def key_file(key: str | None) -> Path | None:
    """A key that is a file, not one of KMS."""
    return Path(key) if key and not key.startswith("kms:") else None


def host_root(context: Context) -> Root:
    """A context's files for this machine's Python; our code has its bytecode, as in the image."""
    made = make_root(context)
    code = _made(context, "code", lambda into: _compile_code(context, into))
    return Root(made.task, (made.task, code, made.path[-1]))


def _compile_code(context: Context, into: Path) -> None:
    shutil.copytree(context.folder / "code" / "opt" / "python", into)
    install_code(into)


def _made(context: Context, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that belongs to the context's digest, filled where it is not there yet; older ones are removed."""
    folder = context.folder.absolute().parent / f"{name}-{context.digest[-12:]}"
    if folder.is_dir():
        return folder
    with new_folder(folder) as new:
        fill(new)
        for old in folder.parent.glob(f"{name}-*"):
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _link_client(dependencies: Path, into: Path) -> None:
    """The runtime client alone, which Lambda brings and an archive does not have."""
    into.mkdir(parents=True)
    for pattern in _CLIENT:
        for path in dependencies.glob(pattern):
            (into / path.name).symlink_to(path)
