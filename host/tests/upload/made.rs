//! What the tests check: plugins built from `tests/guests`, modules written byte by byte, and checkers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tempfile::{NamedTempFile, TempDir};
use wasm_encoder::{
    CodeSection, Component, EntityType, Function, FunctionSection, ImportSection, Instruction,
    Module, ModuleSection, TypeSection, ValType,
};
use wasmill::author::{self, BuildOptions};
use wasmill::config::Ceilings;
use wasmill::error::Error;
use wasmill::upload::{CheckLimits, Checker, UploadReport};

/// The component of a guest of `tests/guests`, built once.
pub(crate) fn guest(name: &'static str) -> Vec<u8> {
    static BUILT: LazyLock<Mutex<BTreeMap<&'static str, Vec<u8>>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap();
    built
        .entry(name)
        .or_insert_with(|| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../tests/guests")
                .join(name);
            build(&folder)
        })
        .clone()
}

/// The component of a plugin's folder.
pub(crate) fn build(folder: &Path) -> Vec<u8> {
    let out = TempDir::new().unwrap();
    let options = BuildOptions {
        out: Some(out.path().join("plugin.wasm")),
        offline: std::env::var_os("CARGO_NET_OFFLINE").is_some(),
        ..BuildOptions::default()
    };
    let built = author::build(folder, &options, &mut |_| {}).unwrap();
    std::fs::read(built.path).unwrap()
}

/// A checker with a process and a cache of its own.
pub(crate) struct Host {
    pub(crate) folder: TempDir,
    pub(crate) checker: Checker,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let checker = Checker {
            exe: Some(PathBuf::from(env!("CARGO_BIN_EXE_wasmill"))),
            limits: CheckLimits::default(),
            cache: Some(folder.path().join("compiled")),
            ceilings: Ceilings::default(),
            signing: Vec::new(),
        };
        Self { folder, checker }
    }

    pub(crate) fn with(mut self, memory: u64, cpu: u64, wall: u64) -> Self {
        self.checker.limits = CheckLimits {
            memory,
            cpu: Duration::from_secs(cpu),
            wall: Duration::from_secs(wall),
            ..CheckLimits::default()
        };
        self
    }

    pub(crate) fn check(&self, component: &[u8]) -> Result<UploadReport, Error> {
        self.check_signed(component, None)
    }

    pub(crate) fn check_signed(
        &self,
        component: &[u8],
        signature: Option<&str>,
    ) -> Result<UploadReport, Error> {
        let file = NamedTempFile::new_in(&self.folder).unwrap();
        std::fs::write(&file, component).unwrap();
        self.checker.check(file.path(), signature)
    }

    /// Names in the cache of native code.
    pub(crate) fn entries(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("compiled/native");
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect()
    }
}

/// A plugin with one more core module in it, which nothing instantiates and a compiler compiles.
pub(crate) fn carrying(plugin: &[u8], module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    let mut bytes = plugin.to_vec();
    bytes.extend_from_slice(&component.finish()[8..]);
    bytes
}

/// A module of one function: `loops` nested loops around code that changes each of `locals` variables. Each
/// loop has to carry each variable, so a compiler makes `loops × locals` values of a few kilobytes.
pub(crate) fn tangled(loops: usize, locals: u32) -> Module {
    let mut function = Function::new([(locals, ValType::I32)]);
    for _ in 0..loops {
        function.instruction(&Instruction::Loop(wasm_encoder::BlockType::Empty));
    }
    for local in 0..locals {
        function
            .instruction(&Instruction::LocalGet(local))
            .instruction(&Instruction::I32Const(1))
            .instruction(&Instruction::I32Add)
            .instruction(&Instruction::LocalSet(local));
    }
    for _ in 0..loops {
        function
            .instruction(&Instruction::LocalGet(0))
            .instruction(&Instruction::BrIf(0))
            .instruction(&Instruction::End);
    }
    function.instruction(&Instruction::End);
    module([function])
}

/// A module of ordinary code: `functions` functions of `steps` steps each, with loads, arithmetic and branches.
pub(crate) fn ordinary(functions: u32, steps: i32) -> Module {
    module((0..functions).map(|number| {
        let mut function = Function::new([(4, ValType::I32)]);
        for step in 0..steps {
            let seed = number.cast_signed().wrapping_mul(31).wrapping_add(step);
            function
                .instruction(&Instruction::LocalGet(0))
                .instruction(&Instruction::I32Const(seed))
                .instruction(&Instruction::I32Mul)
                .instruction(&Instruction::LocalTee(1))
                .instruction(&Instruction::LocalGet(2))
                .instruction(&Instruction::I32Xor)
                .instruction(&Instruction::LocalSet(0))
                .instruction(&Instruction::Block(wasm_encoder::BlockType::Empty))
                .instruction(&Instruction::LocalGet(1))
                .instruction(&Instruction::BrIf(0))
                .instruction(&Instruction::LocalGet(0))
                .instruction(&Instruction::LocalSet(3))
                .instruction(&Instruction::End);
        }
        function.instruction(&Instruction::End);
        function
    }))
}

fn module(functions: impl IntoIterator<Item = Function>) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let (mut declared, mut code) = (FunctionSection::new(), CodeSection::new());
    for function in functions {
        declared.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    module
}

/// A core module with a foreign import, for those who upload what another tool made.
pub(crate) fn core_module() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import(
        "wasi_snapshot_preview1",
        "proc_exit",
        EntityType::Function(0),
    );
    let mut module = Module::new();
    module.section(&types).section(&imports);
    module.finish()
}

/// All occurrences of `from` replaced by `to`, which is as long.
pub(crate) fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<usize> = (0..=out.len() - from.len())
        .filter(|at| out[*at..].starts_with(from))
        .collect();
    assert!(
        !places.is_empty(),
        "{:?} is not in it",
        String::from_utf8_lossy(from)
    );
    for at in places {
        out[at..at + to.len()].copy_from_slice(to);
    }
    out
}

/// A plugin that describes itself as it is told and emits nothing.
pub(crate) fn written(toml: &str, describe: &str) -> Vec<u8> {
    let text = describe.replace('\\', "\\\\").replace('"', "\\\"");
    let length = describe.len();
    let mut module = wat::parse_str(format!(
        r#"(module
  (memory (export "memory") 16)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 2048) "{text}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.get $free)
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 7)) (i32.const -8))))
  (func (export "wasmill:plugin/describe@0.1.0#describe") (result i32)
    (i32.store (i32.const 16) (i32.const 2048))
    (i32.store offset=4 (i32.const 16) (i32.const {length}))
    (i32.const 16))
  (func (export "wasmill:plugin/transform@0.1.0#init") (param i32 i32) (result i32) (i32.const 32))
  (func (export "wasmill:plugin/transform@0.1.0#run") (param i32) (result i32) (i32.const 64)))"#
    ))
    .unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path("../wit/since-v0.1").unwrap();
    let world = resolve
        .select_world(&[package], Some("transform-plugin"))
        .unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding, false).unwrap();
    let component = wit_component::ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .encode()
        .unwrap();
    wasmill::manifest::embed(&component, toml, describe).unwrap()
}

/// Resident memory of this process, bytes.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .strip_suffix("kB")
        .unwrap()
        .trim()
        .parse::<u64>()
        .unwrap()
        << 10
}
