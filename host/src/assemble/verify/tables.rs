//! [`Tables`]: the tables that the releases of a pipeline write, each once, and which route goes to which.

use std::collections::HashMap;

use super::super::releases::Loaded;
use crate::config::Config;
use crate::pipeline::{AnchorPlan, Binding, Plan};
use crate::verify::{Expected, Kind, Table};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) all: Vec<Expected>,
    /// By release id and route index.
    routes: HashMap<(String, usize), usize>,
}

impl Tables {
    /// Enters what a release writes, before any row of it comes.
    ///
    /// # Errors
    /// Why its tables cannot be compared together with those entered before; nothing is entered then.
    pub(super) fn enter(&mut self, config: &Config, loaded: &Loaded) -> Result<(), String> {
        let release = &loaded.release;
        let known: Vec<Table> = self.all.iter().map(|known| known.table.clone()).collect();
        let (tables, routes) = united(known, config, &release.plan)?;
        for (at, table) in tables.into_iter().enumerate() {
            match self.all.get_mut(at) {
                Some(known) => known.table = table,
                None => self.all.push(Expected::new(table)),
            }
        }
        let routes = routes.into_iter();
        self.routes
            .extend(routes.map(|(route, at)| ((release.id.to_string(), route), at)));
        Ok(())
    }

    /// Enters a release that may have written rows, where all its tables and columns are known already.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn join(&mut self, config: &Config, loaded: &Loaded) -> Result<(), String> {
        let known: Vec<Table> = self.all.iter().map(|known| known.table.clone()).collect();
        let (tables, _) = united(known.clone(), config, &loaded.release.plan)?;
        let columns = |tables: &[Table]| {
            tables
                .iter()
                .map(|table| table.columns.len())
                .sum::<usize>()
        };
        if tables.len() != known.len() || columns(&tables) != columns(&known) {
            return Err("it writes tables or columns that no other release does".to_owned());
        }
        self.enter(config, loaded)
    }

    /// Where the rows of a route go, if to a table.
    pub(super) fn of(&mut self, release: &str, route: usize) -> Option<&mut Expected> {
        let at = self.place(release, route)?;
        self.all.get_mut(at)
    }

    /// Which table the rows of a route go to.
    pub(super) fn place(&self, release: &str, route: usize) -> Option<usize> {
        self.routes.get(&(release.to_owned(), route)).copied()
    }
}

/// Route indices, and where in the list their tables are.
type Places = Vec<(usize, usize)>;

/// The tables with those of a plan, and the plan's routes in them.
fn united(
    mut tables: Vec<Table>,
    config: &Config,
    plan: &Plan,
) -> Result<(Vec<Table>, Places), String> {
    let mut routes = Vec::new();
    for (index, bound) in plan.routes.iter().enumerate() {
        let connection = match (&bound.binding, &plan.anchor) {
            (Binding::Here, AnchorPlan::Postgres(name)) => name,
            (Binding::Ahead(name), _) => name,
            _ => continue,
        };
        let Some(mut table) = Table::of(&bound.route, connection) else {
            continue;
        };
        qualify(&mut table, config);
        let same = |known: &Table| {
            (known.kind, &known.connection, &known.name)
                == (table.kind, &table.connection, &table.name)
        };
        let at = match tables.iter().position(same) {
            Some(at) => {
                tables[at].unite(&table)?;
                at
            }
            None => {
                tables.push(table);
                tables.len() - 1
            }
        };
        routes.push((index, at));
    }
    Ok((tables, routes))
}

/// One table has one name.
fn qualify(table: &mut Table, config: &Config) {
    if table.name.contains('.') {
        return;
    }
    let space = match table.kind {
        Kind::Postgres => "public",
        Kind::Cassandra => match config.cassandra.get(&table.connection) {
            Some(connection) => connection.keyspace.as_str(),
            None => return,
        },
    };
    table.name = format!("{space}.{}", table.name);
}
