//! JSON bytes to cells: one pass over the text along a compiled trie of paths.
//!
//! Owns the JSON pointers (RFC 6901; a token is a key of an object and, when it is a number without leading
//! zeros, an index of an array); [`super::json_value`] reads what stands there. It copies what is asked and
//! walks over the rest, but *all* of it has to be JSON.
//!
//! Refused: text that is not UTF-8 or not JSON (see [`crate::record::json`]: trailing bytes, depth over 127),
//! and a key **on the way to a declared field** that stands twice in one object (which one counts is nobody's
//! guess; other repeats are not looked at).

use super::Field;
use super::fail::{Fail, Part};
use super::json_value::{Fault, put_value};
use crate::record::cells::put_null;
use crate::record::json::{Malformed, Scanner, Str};

/// Where a field's cell lies in the output; [`ABSENT`] when it was not met.
pub(super) type Span = (usize, usize);

/// Span of a field that was not met.
pub(super) const ABSENT: Span = (usize::MAX, usize::MAX);

/// Above this many keys a lookup is a binary search.
const LINEAR: usize = 8;

/// The paths of the fields of one JSON text, as a trie. Node 0 is the whole text.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    part: Part,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    path: String,
    fields: Vec<usize>,
    /// In the order the fields were declared: records often follow it.
    children: Vec<(String, usize)>,
    /// Indices into `children`, sorted by key.
    sorted: Vec<usize>,
    /// Children that are array indexes, ascending.
    indexed: Vec<(usize, usize)>,
}

/// Buffers of a walk, reused from record to record.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// For each node the number of the walk that met it last.
    seen: Vec<u64>,
    walk: u64,
    key: Vec<u8>,
}

impl Plan {
    /// A plan for `fields` (index and pointer); `Err` explains the pointer that is none.
    pub(super) fn compile(part: Part, fields: &[(usize, &str)]) -> Result<Self, String> {
        let mut nodes = vec![Node::default()];
        for (field, pointer) in fields {
            let mut at = 0;
            for token in tokens(pointer)? {
                let known = nodes[at].children.iter().find(|(key, _)| *key == token);
                at = match known {
                    Some((_, child)) => *child,
                    None => {
                        let child = nodes.len();
                        let path = format!(
                            "{}/{}",
                            nodes[at].path,
                            token.replace('~', "~0").replace('/', "~1")
                        );
                        nodes[at].children.push((token, child));
                        nodes.push(Node {
                            path,
                            ..Node::default()
                        });
                        child
                    }
                };
            }
            nodes[at].fields.push(*field);
        }
        for node in &mut nodes {
            let children = &node.children;
            node.sorted = (0..children.len()).collect();
            node.sorted
                .sort_by(|a, b| children[*a].0.cmp(&children[*b].0));
            node.indexed = children
                .iter()
                .filter_map(|(key, child)| Some((array_index(key)?, *child)))
                .collect();
            node.indexed.sort_unstable();
        }
        Ok(Self { part, nodes })
    }

    /// All fields of the plan.
    pub(super) fn fields(&self) -> impl Iterator<Item = usize> {
        self.nodes
            .iter()
            .flat_map(|node| node.fields.iter().copied())
    }

    /// Appends the cell of every field met in `bytes` and notes where.
    pub(super) fn walk(
        &self,
        fields: &[Field],
        bytes: &[u8],
        scratch: &mut Scratch,
        (out, spans): (&mut Vec<u8>, &mut [Span]),
    ) -> Result<(), Fail> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Fail::malformed(
                self.part,
                format!("not UTF-8 after byte {}", error.valid_up_to()),
            )
        })?;
        scratch.seen.resize(self.nodes.len(), 0);
        scratch.walk += 1;
        let mut walk = Walk {
            plan: self,
            fields,
            scan: Scanner::new(text),
            scratch,
            out,
            spans,
        };
        walk.node(0)
            .and_then(|()| walk.scan.finish().map_err(Stop::Malformed))
            .map_err(|stop| match stop {
                Stop::Malformed(malformed) => Fail::json(self.part, malformed),
                Stop::Fail(fail) => fail,
            })
    }
}

/// The tokens of a JSON pointer.
fn tokens(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err(format!("path {pointer:?} does not start with a slash"));
    };
    rest.split('/')
        .map(|token| {
            let mut parts = token.split('~');
            let mut text = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let (letter, rest) = match part.as_bytes().first() {
                    Some(b'0') => ('~', &part[1..]),
                    Some(b'1') => ('/', &part[1..]),
                    _ => {
                        return Err(format!(
                            "path {pointer:?} has a ~ that is neither ~0 nor ~1"
                        ));
                    }
                };
                text.push(letter);
                text.push_str(rest);
            }
            Ok(text)
        })
        .collect()
}

fn array_index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    if plain { token.parse().ok() } else { None }
}

enum Stop {
    Malformed(Malformed),
    Fail(Fail),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

struct Walk<'a, 'b> {
    plan: &'a Plan,
    fields: &'a [Field],
    scan: Scanner<'b>,
    scratch: &'a mut Scratch,
    out: &'a mut Vec<u8>,
    spans: &'a mut [Span],
}

impl<'a> Walk<'a, '_> {
    /// Takes the value that stands at a node.
    fn node(&mut self, at: usize) -> Result<(), Stop> {
        let plan: &'a Plan = self.plan;
        let node = &plan.nodes[at];
        if self.scratch.seen[at] == self.scratch.walk {
            let what = format!("ambiguous: {:?} stands twice", node.path);
            return Err(Stop::Fail(Fail::malformed(plan.part, what)));
        }
        self.scratch.seen[at] = self.scratch.walk;
        let first = self.scan.peek();
        if let ([field], []) = (&node.fields[..], &node.children[..]) {
            return self.field(*field);
        }
        let from = self.scan.at();
        match first {
            Some(b'{') if !node.children.is_empty() => self.object(node)?,
            Some(b'[') if !node.indexed.is_empty() => self.array(node)?,
            _ => self.scan.skip_value()?,
        }
        for field in &node.fields {
            self.scan.rewind(from);
            self.field(*field)?;
        }
        Ok(())
    }

    fn object(&mut self, node: &'a Node) -> Result<(), Stop> {
        self.scan.enter()?;
        if self.scan.peek() == Some(b'}') {
            self.scan.leave();
            return Ok(());
        }
        let mut next = 0;
        loop {
            let key = self.scan.key()?;
            match self.child(node, key, next) {
                Some(child) => {
                    next = child + 1;
                    self.node(node.children[child].1)?;
                }
                None => self.scan.skip_value()?,
            }
            if !self.scan.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Finds a key among a node's children, trying `next` first.
    #[inline]
    fn child(&mut self, node: &Node, key: Str<'_>, next: usize) -> Option<usize> {
        if key.escaped {
            self.scratch.key.clear();
            key.unescape(&mut self.scratch.key).ok()?;
            return find(node, std::str::from_utf8(&self.scratch.key).ok()?, next);
        }
        find(node, key.raw, next)
    }

    fn array(&mut self, node: &'a Node) -> Result<(), Stop> {
        self.scan.enter()?;
        if self.scan.peek() == Some(b']') {
            self.scan.leave();
            return Ok(());
        }
        let mut wanted = node.indexed.iter().peekable();
        for at in 0_usize.. {
            match wanted.next_if(|(index, _)| *index == at) {
                Some((_, child)) => self.node(*child)?,
                None => self.scan.skip_value()?,
            }
            if !self.scan.more(b']')? {
                break;
            }
        }
        Ok(())
    }

    /// Takes a field's value and appends its cell.
    #[inline]
    fn field(&mut self, index: usize) -> Result<(), Stop> {
        let field = &self.fields[index];
        let start = self.out.len();
        if self.scan.peek() == Some(b'n') {
            self.scan.literal("null")?;
            if !field.nullable {
                return Err(Stop::Fail(Fail::Missing {
                    field: index,
                    what: "null",
                }));
            }
            put_null(self.out);
        } else {
            put_value(&mut self.scan, &field.ty, field.unit, self.out).map_err(
                |fault| match fault {
                    Fault::Malformed(malformed) => Stop::Malformed(malformed),
                    Fault::Unfit(unfit) => Stop::Fail(Fail::unfit(index, unfit)),
                },
            )?;
        }
        self.spans[index] = (start, self.out.len());
        Ok(())
    }
}

#[inline]
fn find(node: &Node, key: &str, next: usize) -> Option<usize> {
    if node.children.get(next).is_some_and(|(name, _)| name == key) {
        return Some(next);
    }
    if node.children.len() <= LINEAR {
        return node.children.iter().position(|(name, _)| name == key);
    }
    let found = node
        .sorted
        .binary_search_by(|child| node.children[*child].0.as_str().cmp(key));
    found.ok().map(|at| node.sorted[at])
}
