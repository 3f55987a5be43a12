//! [`RoutePlan`]: a route compiled to SQL text, once. It owns the rules a route must keep whatever the
//! table looks like; it never connects.
//!
//! Writes travel column-wise, one array a column (`unnest`), the cheapest form. `unnest` flattens arrays of
//! arrays, so a route with a list or set column travels row-wise instead: one array of the table's own row
//! type, whose fields may be arrays. (`unnest` of several arrays is syntax: it must be written without its
//! schema; the session's pinned `search_path` finds the right one.)
//!
//! Where a guarded route keeps what it deletes (`deleted_at`), a delete is one more row of the same upsert: the key,
//! the guard, its time, and null in every other column. So the order in which partitions bring a key decides nothing.
//!
//! Every statement carries the filter [`FLYING`]: it touches nothing unless it runs inside the transaction
//! of its flight. Without it, rows would commit by themselves if the `BEGIN` in front of them failed.

use crate::error::Error;
use crate::manifest::Mode;
use crate::record::{Column, Type};

use super::names::{self, quote, quote_all};
use super::settings::PostgresRoute;
use super::wire;

/// The setting that names the open flight, local to its transaction. `$n` is the flight's number as text.
fn flying(parameter: usize) -> String {
    format!("pg_catalog.current_setting('wasmill.flight', true) = ${parameter}::text")
}

/// How the rows of a route travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One array a column.
    Columns,
    /// One array of the table's row type.
    Rows,
}

/// A route compiled to SQL.
#[derive(Clone, Debug)]
pub(super) struct RoutePlan {
    pub(super) route: PostgresRoute,
    pub(super) shape: Shape,
    /// The columns written, in the order of the parameters: those of the route, then `deleted_at` where there is one.
    /// Nullable is what the table has to take: with deletes kept, null in all but key and guard.
    pub(super) columns: Vec<Column>,
    /// Last parameter: the flight's number.
    pub(super) write: String,
    /// By key; `None` where deletes are refused or kept. Last parameter: the flight's number.
    pub(super) delete: Option<String>,
}

impl RoutePlan {
    /// Compiles all routes of an anchor.
    ///
    /// # Errors
    /// As [`RoutePlan::new`].
    pub(super) fn all(routes: &[PostgresRoute]) -> Result<Vec<Self>, Error> {
        routes.iter().cloned().map(Self::new).collect()
    }

    /// Compiles a route.
    ///
    /// # Errors
    /// `Config` with every rule the route breaks.
    pub(super) fn new(route: PostgresRoute) -> Result<Self, Error> {
        let problems = problems(&route);
        if !problems.is_empty() {
            return Err(Error::config(
                format!("route {:?} to postgres table {}", route.name, route.table),
                problems.join("; "),
            )
            .hint("change the route in the manifest, or the types in the plugin"));
        }
        let shape = if route.columns.iter().any(|column| is_list(&column.ty)) {
            Shape::Rows
        } else {
            Shape::Columns
        };
        let columns = columns(&route);
        Ok(Self {
            write: write_sql(&route, &columns, shape),
            delete: (!route.key.is_empty() && route.guard.is_none()).then(|| delete_sql(&route)),
            shape,
            columns,
            route,
        })
    }

    /// Whether deletes are kept as rows.
    pub(super) fn keeps_deleted(&self) -> bool {
        self.route.deleted_at.is_some()
    }
}

fn columns(route: &PostgresRoute) -> Vec<Column> {
    let mut columns = route.columns.clone();
    let Some(name) = &route.deleted_at else {
        return columns;
    };
    for (index, column) in columns.iter_mut().enumerate() {
        column.nullable |= !route.key.contains(&index) && route.guard != Some(index);
    }
    columns.push(Column {
        name: name.clone(),
        ty: Type::Timestamp,
        nullable: true,
    });
    columns
}

pub(super) fn is_list(ty: &Type) -> bool {
    matches!(ty, Type::List(_) | Type::Set(_))
}

/// Every rule the route breaks on its own, without a look at the table.
fn problems(route: &PostgresRoute) -> Vec<String> {
    let mut problems = Vec::new();
    if route.columns.is_empty() {
        problems.push("it has no column".to_owned());
    }
    for (index, column) in route.columns.iter().enumerate() {
        if let Err(problem) = names::check(&column.name) {
            problems.push(problem);
        }
        if route.columns[..index]
            .iter()
            .any(|other| other.name == column.name)
        {
            problems.push(format!("column {:?} is there twice", column.name));
        }
        if column.ty == Type::Headers {
            problems.push(format!(
                "column {:?} is of type headers, which only a topic takes",
                column.name
            ));
        }
        if let Type::List(item) | Type::Set(item) = &column.ty
            && is_list(item)
        {
            problems.push(format!(
                "column {:?} is a list of lists; arrays of postgres are rectangular: declare it as json",
                column.name
            ));
        }
    }
    match (route.mode, route.key.is_empty()) {
        (Mode::Upsert, true) => problems.push("mode upsert needs a key".to_owned()),
        (Mode::Append, false) => problems.push("mode append takes no key".to_owned()),
        _ => {}
    }
    let mut key_problem = |index: usize, role: &str| match route.columns.get(index) {
        None => problems.push(format!("{role} names column {index}, there is none")),
        Some(column) if column.nullable => {
            problems.push(format!("{role} column {:?} is nullable", column.name));
        }
        Some(column)
            if matches!(
                column.ty,
                Type::Json | Type::Headers | Type::List(_) | Type::Set(_) | Type::Map(..)
            ) =>
        {
            problems.push(format!(
                "{role} column {:?} is of type {}, which has no order",
                column.name, column.ty
            ));
        }
        Some(_) => {}
    };
    for index in &route.key {
        key_problem(*index, "key");
    }
    if let Some(guard) = route.guard {
        key_problem(guard, "guard");
        if route.key.contains(&guard) {
            problems.push("the guard is a key column".to_owned());
        }
        if route.mode == Mode::Append {
            problems.push("mode append takes no guard".to_owned());
        }
    }
    if let Some(name) = &route.deleted_at {
        problems.extend(names::check(name).err());
        if route.guard.is_none() {
            problems.push("deleted_at without a guard".to_owned());
        }
        if route.columns.iter().any(|column| column.name == *name) {
            problems.push(format!("deleted_at {name:?} is a column of the route"));
        }
    }
    problems
}

fn write_sql(route: &PostgresRoute, written: &[Column], shape: Shape) -> String {
    let names = || written.iter().map(|column| column.name.as_str());
    let columns = quote_all(names());
    let (select, parameters) = match shape {
        Shape::Columns => {
            let arrays: Vec<String> = (1..)
                .zip(written)
                .map(|(at, column)| format!("${at}::{}[]", wire::parameter_name(&column.ty)))
                .collect();
            (
                format!("* FROM unnest({})", arrays.join(", ")),
                written.len(),
            )
        }
        Shape::Rows => (format!("{columns} FROM unnest($1::{}[])", route.table), 1),
    };
    let conflict = if route.key.is_empty() {
        String::new()
    } else {
        format!(" {}", conflict_sql(route, written))
    };
    format!(
        "INSERT INTO {} AS target ({columns}) SELECT {select} AS source WHERE {}{conflict}",
        route.table,
        flying(parameters + 1),
    )
}

fn conflict_sql(route: &PostgresRoute, written: &[Column]) -> String {
    let key = quote_all(
        route
            .key
            .iter()
            .map(|index| route.columns[*index].name.as_str()),
    );
    let sets: Vec<String> = (0..)
        .zip(written)
        .filter(|(index, _)| !route.key.contains(index))
        .map(|(_, column)| format!("{0} = excluded.{0}", quote(&column.name)))
        .collect();
    if sets.is_empty() {
        return format!("ON CONFLICT ({key}) DO NOTHING");
    }
    let guard = route.guard.map_or_else(String::new, |guard| {
        let guard = quote(&route.columns[guard].name);
        format!(" WHERE excluded.{guard} >= target.{guard}")
    });
    format!(
        "ON CONFLICT ({key}) DO UPDATE SET {}{guard}",
        sets.join(", ")
    )
}

fn delete_sql(route: &PostgresRoute) -> String {
    let mut arrays = Vec::new();
    let mut names = Vec::new();
    let mut matches = Vec::new();
    for (at, index) in (1..).zip(&route.key) {
        let column = &route.columns[*index];
        arrays.push(format!("${at}::{}[]", wire::parameter_name(&column.ty)));
        names.push(format!("k{at}"));
        matches.push(format!("target.{} = gone.k{at}", quote(&column.name)));
    }
    format!(
        "DELETE FROM {} AS target USING unnest({}) AS gone({}) WHERE {} AND {}",
        route.table,
        arrays.join(", "),
        names.join(", "),
        matches.join(" AND "),
        flying(route.key.len() + 1),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::manifest::Create;
    use crate::postgres::TableName;
    use crate::record::Column;

    fn route(mode: Mode, key: &[usize], columns: &[(&str, &str, bool)]) -> PostgresRoute {
        PostgresRoute {
            index: 0,
            name: "r".to_owned(),
            columns: columns
                .iter()
                .map(|(name, ty, nullable)| Column {
                    name: (*name).to_owned(),
                    ty: ty.parse().unwrap(),
                    nullable: *nullable,
                })
                .collect(),
            table: TableName::parse("geo.t").unwrap(),
            mode,
            key: key.to_vec(),
            guard: None,
            deleted_at: None,
            create: Create::Never,
        }
    }

    #[test]
    fn an_upsert_in_columns() {
        let mut route = route(
            Mode::Upsert,
            &[0],
            &[
                ("id", "int64", false),
                ("at", "timestamp", false),
                ("d", "decimal(5,2)", true),
            ],
        );
        route.guard = Some(1);
        let plan = RoutePlan::new(route.clone()).unwrap();
        assert_eq!(
            plan.write,
            "INSERT INTO \"geo\".\"t\" AS target (\"id\", \"at\", \"d\") SELECT * FROM \
             unnest($1::bigint[], $2::timestamp with time zone[], $3::numeric[]) AS source WHERE \
             pg_catalog.current_setting('wasmill.flight', true) = $4::text ON CONFLICT (\"id\") DO UPDATE SET \
             \"at\" = excluded.\"at\", \"d\" = excluded.\"d\" WHERE excluded.\"at\" >= target.\"at\""
        );
        assert_eq!(plan.delete, None, "a guarded route refuses deletes");
        route.deleted_at = Some("gone".to_owned());
        let plan = RoutePlan::new(route.clone()).unwrap();
        assert_eq!(
            plan.write,
            "INSERT INTO \"geo\".\"t\" AS target (\"id\", \"at\", \"d\", \"gone\") SELECT * FROM \
             unnest($1::bigint[], $2::timestamp with time zone[], $3::numeric[], $4::timestamp with time zone[]) AS \
             source WHERE pg_catalog.current_setting('wasmill.flight', true) = $5::text ON CONFLICT (\"id\") DO UPDATE \
             SET \"at\" = excluded.\"at\", \"d\" = excluded.\"d\", \"gone\" = excluded.\"gone\" WHERE \
             excluded.\"at\" >= target.\"at\""
        );
        assert_eq!(plan.delete, None, "a delete is a row of the upsert");
        route.guard = None;
        let error = RoutePlan::new(route).unwrap_err();
        assert!(error.detail().contains("without a guard"), "{error}");
    }

    #[test]
    fn lists_travel_as_rows_and_keys_alone_do_nothing_on_conflict() {
        let plan = RoutePlan::new(route(
            Mode::Append,
            &[],
            &[("id", "int64", false), ("tags", "list<text>", true)],
        ))
        .unwrap();
        assert_eq!(plan.shape, Shape::Rows);
        assert!(
            plan.write.contains("unnest($1::\"geo\".\"t\"[])"),
            "{}",
            plan.write
        );
        let plan = RoutePlan::new(route(Mode::Upsert, &[0], &[("id", "int64", false)])).unwrap();
        assert!(plan.write.ends_with("ON CONFLICT (\"id\") DO NOTHING"));
        assert!(plan.delete.unwrap().contains("target.\"id\" = gone.k1"));
    }

    #[test]
    fn every_broken_rule_is_named_at_once() {
        let error = RoutePlan::new(route(
            Mode::Upsert,
            &[0, 7],
            &[
                ("id", "json", true),
                ("id", "list<list<text>>", true),
                ("h", "headers", true),
            ],
        ))
        .unwrap_err();
        for part in ["twice", "list of lists", "headers", "nullable", "column 7"] {
            assert!(error.detail().contains(part), "{part}: {error}");
        }
        assert!(RoutePlan::new(route(Mode::Upsert, &[], &[("id", "text", false)])).is_err());
        assert!(RoutePlan::new(route(Mode::Append, &[0], &[("id", "text", false)])).is_err());
    }
}
