//! Guests for the engine's tests, written by hand as core modules and wrapped like `plugin build` wraps a
//! crate: each does one thing, named after it. Test code only.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how a test fails")]

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What a guest's `describe` returns unless the test is about it.
pub(super) const DESCRIPTION: &str = r#"{"sdk":"wat 0","inputs":[],"routes":[],"config":[]}"#;

/// A guest in parts: bodies of its functions in WebAssembly text.
pub(super) struct Guest<'a> {
    /// Pages of memory it starts with.
    pub(super) pages: u32,
    /// Body of `describe`; leaves (pointer, length) at 16.
    pub(super) describe: &'a str,
    /// Body of `init`; leaves its result at 32.
    pub(super) init: &'a str,
    /// Body of `run`, with the batch at `$batch`; leaves its result at 64.
    pub(super) run: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self {
            pages: 16,
            describe: "",
            init: "",
            run: PASS,
        }
    }
}

/// One row a record, its cells the record's fields.
pub(super) const PASS: &str = r"
    (local $n i32) (local $i i32) (local $sources i32)
    (local.set $n (i32.load offset=20 (local.get $batch)))
    (local.set $sources (call $alloc (i32.mul (local.get $n) (i32.const 4))))
    (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
        (i32.store (i32.add (local.get $sources) (i32.mul (local.get $i) (i32.const 4))) (local.get $i))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store offset=4 (i32.const 64) (i32.load offset=8 (local.get $batch)))
    (i32.store offset=8 (i32.const 64) (i32.load offset=12 (local.get $batch)))
    (i32.store offset=12 (i32.const 64) (i32.load offset=16 (local.get $batch)))
    (i32.store offset=16 (i32.const 64) (local.get $n))
    (i32.store offset=20 (i32.const 64) (local.get $sources))
    (i32.store offset=24 (i32.const 64) (local.get $n))";

/// Never returns.
pub(super) const SPIN: &str = "(loop $for_ever (br $for_ever))";

/// Says why, as a panic hook does, and traps.
pub(super) const PANIC: &str = "
    (call $log (i32.const 3) (i32.const 1024) (i32.const 8))
    (unreachable)";

/// Asks for memory page by page and traps when it is refused, as an allocator does.
pub(super) const HOG: &str = "
    (loop $more
        (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (unreachable)";

/// Returns the first gigabyte of its memory as cells.
pub(super) const GIGABYTE: &str = "
    (drop (memory.grow (i32.const 16384)))
    (i32.store offset=4 (i32.const 64) (i32.const 0))
    (i32.store offset=8 (i32.const 64) (i32.const 1073741824))";

/// Returns a list that ends outside its memory.
pub(super) const OUTSIDE: &str = "
    (i32.store offset=4 (i32.const 64) (i32.const -16))
    (i32.store offset=8 (i32.const 64) (i32.const 4096))";

/// Returns `failure` number `case` with the text `oh no: ?`.
pub(super) fn failure(case: u32) -> String {
    format!(
        "(i32.store8 (i32.const 64) (i32.const 1))
         (i32.store8 offset=4 (i32.const 64) (i32.const {case}))
         (i32.store offset=8 (i32.const 64) (i32.const 1024))
         (i32.store offset=12 (i32.const 64) (i32.const 8))"
    )
}

/// The core module of a guest.
pub(super) fn module(guest: &Guest<'_>) -> Vec<u8> {
    let Guest {
        pages,
        describe,
        init,
        run,
    } = guest;
    let description = DESCRIPTION.replace('"', "\\\"");
    let length = DESCRIPTION.len();
    wat::parse_str(format!(
        r#"(module
  (import "wasmill:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
  (memory (export "memory") {pages})
  (global $free (mut i32) (i32.const 4096))
  (data (i32.const 1024) "oh no: ?")
  (data (i32.const 2048) "{description}")
  (func $alloc (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))
  (func $clear (param i32) (global.set $free (i32.const 4096)))
  (func (export "wasmill:plugin/describe@0.1.0#describe") (result i32)
    (i32.store (i32.const 16) (i32.const 2048))
    (i32.store offset=4 (i32.const 16) (i32.const {length}))
    {describe}
    (i32.const 16))
  (func (export "wasmill:plugin/transform@0.1.0#init") (param $setup i32) (param $length i32) (result i32)
    {init}
    (i32.const 32))
  (func (export "cabi_post_wasmill:plugin/transform@0.1.0#run") (param i32) (call $clear (local.get 0)))
  (func $run (export "wasmill:plugin/transform@0.1.0#run") (param $batch i32) (result i32)
    {run}
    (i32.const 64)))"#
    ))
    .unwrap()
}

/// The component of a guest.
pub(super) fn component(guest: &Guest<'_>) -> Vec<u8> {
    let mut module = module(guest);
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path("../wit/since-v0.1").unwrap();
    let world = resolve
        .select_world(&[package], Some("transform-plugin"))
        .unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}

/// The component of a guest whose `run` is `body`.
pub(super) fn running(body: &str) -> Vec<u8> {
    component(&Guest {
        run: body,
        ..Guest::default()
    })
}
