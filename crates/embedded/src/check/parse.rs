//! From text to DataFusion's logical plan, over the sources of this SELECT only. Functions are DataFusion's scalar and aggregate
//! functions and ours; there are no table functions, no variables, no catalogue beside ours.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::{Result, TableReference, not_impl_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select as Body, SelectItem,
    SelectItemQualifiedWildcardKind as Qualified, Statement as Ast, TableFactor, TableWithJoins, Value, Visit,
    VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use streamview_manager::catalog::DataType;
use streamview_manager::engines::Select;

use super::Fault;
use super::errors;
use crate::plan::literals::{self, Numbers};
use crate::plan::slot::{Input, Provider};
use crate::schema::{self, HIDDEN};

/// How deep expressions and queries may nest.
const MAX_NESTING: usize = 50;

/// The one SELECT that the text is.
pub(crate) fn statement(sql: &str) -> std::result::Result<Ast, Fault> {
    let dialect = GenericDialect {};
    let parser = DFParserBuilder::new(sql).with_dialect(&dialect).with_recursion_limit(MAX_NESTING).build();
    let mut statements =
        parser.and_then(|mut parser| parser.parse_statements()).map_err(|error| errors::fault(&error, sql))?;
    let only_select = |text: &str| Fault::at("select_only", text, 1, 1);
    match (statements.pop_front(), statements.pop_front()) {
        (Some(Statement::Statement(statement)), None) if matches!(*statement, Ast::Query(_)) => Ok(*statement),
        (Some(_), None) => Err(only_select("one SELECT is what can be run here")),
        (Some(_), Some(_)) => Err(only_select("one statement at a time, without anything behind it")),
        (None, _) => Err(only_select("there is no statement")),
    }
}

/// The sources, by name.
pub(crate) struct Names {
    sources: Vec<Shown>,
    /// The names of all sources, columns and fields.
    columns: BTreeSet<String>,
}

/// A source as the statement sees it.
struct Shown {
    name: String,
    source: Arc<dyn TableSource>,
    /// What those of its columns are called that `*` does not stand for.
    hidden: Vec<String>,
}

impl Names {
    pub(crate) fn new(select: &Select) -> Names {
        let mentions = |word: &str| super::fault::place_of(&select.sql, word).is_some();
        let shows_hidden = HIDDEN.iter().any(|name| mentions(name));
        let shown = |(number, source): (usize, &streamview_manager::catalog::Source)| {
            let is_table = source.table.is_some();
            let (schema, hidden) = match is_table || !shows_hidden {
                true => (schema::of_table(source), Vec::new()),
                false => (schema::of_source(source), Vec::from(schema::hidden_names(source))),
            };
            let input = if is_table { Input::Table(number) } else { Input::Stream(number) };
            let provider = provider_as_source(Arc::new(Provider { input, schema }));
            Shown { name: source.name.clone(), source: provider, hidden }
        };
        let mut columns = BTreeSet::from(HIDDEN.map(str::to_owned));
        for source in &select.sources {
            columns.insert(source.name.clone());
            for column in &source.columns {
                columns.insert(column.name.clone());
                fields_of(&column.data_type, &mut columns);
            }
        }
        Names { sources: select.sources.iter().enumerate().map(shown).collect(), columns }
    }

    fn source(&self, name: &str) -> Option<&Shown> {
        let exact = self.sources.iter().find(|other| other.name == name);
        exact.or_else(|| self.sources.iter().find(|other| other.name.eq_ignore_ascii_case(name)))
    }

    pub(crate) fn plan(&self, mut statement: Ast, state: &SessionState) -> Result<LogicalPlan> {
        let mut given = Given { names: self.columns.clone(), numbers: Numbers::default() };
        let walked = Visit::visit(&statement, &mut given);
        let mut meant = AsMeant { names: self, known: given.names, is_not_offered: false };
        if walked.is_break() {
            return plan_err!("the statement could not be read");
        }
        let walked = VisitMut::visit(&mut statement, &mut meant);
        if meant.is_not_offered {
            return not_impl_err!(
                "`*` with ILIKE or RENAME is not offered: name the columns, or leave some out by EXCLUDE"
            );
        }
        if walked.is_break() {
            return plan_err!("the statement could not be read");
        }
        let context = Context { names: self, state, none: HashMap::new() };
        let parser = &state.config().options().sql_parser;
        let options = ParserOptions { collect_spans: true, ..ParserOptions::from(parser) };
        let plan = SqlToRel::new_with_options(&context, options).sql_statement_to_plan(statement)?;
        literals::exact(plan, &given.numbers)
    }
}

fn fields_of(of: &DataType, names: &mut BTreeSet<String>) {
    match of {
        DataType::Array(of) | DataType::Map(of) => fields_of(of, names),
        DataType::Row(fields) => {
            for (name, of) in fields {
                names.insert(name.clone());
                fields_of(of, names);
            }
        }
        _ => {}
    }
}

/// What a statement gives itself: names, and numbers that are written out.
struct Given {
    names: BTreeSet<String>,
    numbers: Numbers,
}

impl Visitor for Given {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.names.extend(ctes.map(|cte| cte.alias.name.value.clone()));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Body) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.names.insert(alias.value.clone());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Number(text, _) = &value.value
        {
            self.numbers.note(text);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } = factor
        {
            self.names.insert(alias.name.value.clone());
            self.names.extend(alias.columns.iter().map(|column| column.name.value.clone()));
        }
        ControlFlow::Continue(())
    }
}

/// What DataFusion reads otherwise than it is meant: `*` stands for the columns of a record's value only, and a bare name that
/// is no name here, but differs from just one in case only, is that one (fields of JSON are often `camelCase`).
struct AsMeant<'a> {
    names: &'a Names,
    /// Of columns, fields, sources, and those that the statement gives.
    known: BTreeSet<String>,
    /// Whether something stands behind a `*` that DataFusion passes over without a word.
    is_not_offered: bool,
}

impl<'a> AsMeant<'a> {
    /// What those sources are called here, in small letters, that show more columns than `*` stands for, and these columns.
    fn hiding(&self, from: &TableWithJoins, hiding: &mut Vec<(String, &'a [String])>) {
        let names = self.names;
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::Table { name, alias, .. } => {
                    let Some(own) = last_of(name) else { continue };
                    let Some(shown) = names.source(&own.value) else { continue };
                    if !shown.hidden.is_empty() {
                        let called = alias.as_ref().map_or(own, |alias| &alias.name).value.to_lowercase();
                        hiding.push((called, shown.hidden.as_slice()));
                    }
                }
                TableFactor::NestedJoin { table_with_joins, .. } => self.hiding(table_with_joins, hiding),
                _ => {}
            }
        }
    }

    fn cased(&self, name: &mut Ident) {
        if name.quote_style.is_some() || self.known.contains(&name.value) {
            return;
        }
        let lower = name.value.to_lowercase();
        let mut like = self.known.iter().filter(|known| known.to_lowercase() == lower);
        if let (Some(only), None) = (like.next(), like.next()) {
            name.value.clone_from(only);
        }
    }
}

impl VisitorMut for AsMeant<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Body) -> ControlFlow<()> {
        let mut hiding = Vec::new();
        for from in &select.from {
            self.hiding(from, &mut hiding);
        }
        let each = match (hiding.as_slice(), select.from.as_slice()) {
            ([_, ..], [from]) => each_of(from).filter(|each| each.len() > 1),
            _ => None,
        };
        let mut items = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = &item
                && (options.opt_ilike.is_some() || options.opt_rename.is_some() || options.opt_alias.is_some())
            {
                self.is_not_offered = true;
                return ControlFlow::Break(());
            }
            match (item, &each) {
                // By each of them: what one hides may be a column of another.
                (SelectItem::Wildcard(options), Some(each)) if leaves_nothing_out(&options) => {
                    for name in each {
                        let qualified = Qualified::ObjectName(ObjectName::from(name.clone()));
                        let options = without(options.clone(), hidden_of(name, &hiding));
                        items.push(SelectItem::QualifiedWildcard(qualified, options));
                    }
                }
                (SelectItem::Wildcard(options), _) => {
                    let mut hidden: Vec<String> = hiding.iter().flat_map(|(_, hidden)| hidden.to_vec()).collect();
                    hidden.sort();
                    hidden.dedup();
                    items.push(SelectItem::Wildcard(without(options, &hidden)));
                }
                (SelectItem::QualifiedWildcard(Qualified::ObjectName(name), options), _) => {
                    let hidden: &[String] = last_of(&name).map_or(&[], |name| hidden_of(name, &hiding));
                    let options = without(options, hidden);
                    items.push(SelectItem::QualifiedWildcard(Qualified::ObjectName(name), options));
                }
                (other, _) => items.push(other),
            }
        }
        select.projection = items;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => self.cased(name),
            Expr::CompoundIdentifier(names) => names.iter_mut().for_each(|name| self.cased(name)),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn last_of(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(|part| part.as_ident())
}

/// What those are called, in their order, that are joined by ON; none where `*` is not `*` of each: one has no name, or a column is
/// that of two (USING).
fn each_of(from: &TableWithJoins) -> Option<Vec<Ident>> {
    use JoinConstraint::On;
    use JoinOperator::{Inner, Join, Left, LeftOuter, Right, RightOuter};
    let mut each = Vec::new();
    for join in &from.joins {
        match &join.join_operator {
            Join(On(_)) | Inner(On(_)) | Left(On(_)) | LeftOuter(On(_)) | Right(On(_)) | RightOuter(On(_)) => {}
            _ => return None,
        }
    }
    for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
        match factor {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                each.push(alias.name.clone());
            }
            TableFactor::Table { name, .. } => each.push(last_of(name)?.clone()),
            TableFactor::NestedJoin { table_with_joins, alias: None } => each.extend(each_of(table_with_joins)?),
            _ => return None,
        }
    }
    Some(each)
}

/// Which columns `*` of what is called so does not stand for.
fn hidden_of<'h>(name: &Ident, hiding: &[(String, &'h [String])]) -> &'h [String] {
    let name = name.value.to_lowercase();
    hiding.iter().find(|(other, _)| *other == name).map_or(&[], |(_, hidden)| *hidden)
}

fn leaves_nothing_out(options: &WildcardAdditionalOptions) -> bool {
    options.opt_exclude.is_none() && options.opt_except.is_none() && options.opt_replace.is_none()
}

/// Leaves out these columns, too, beside those that the statement leaves out itself.
fn without(mut options: WildcardAdditionalOptions, hidden: &[String]) -> WildcardAdditionalOptions {
    if hidden.is_empty() {
        return options;
    }
    let mut names = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => Vec::new(),
    };
    let except = options.opt_except.as_ref();
    let except =
        except.into_iter().flat_map(|except| std::iter::once(&except.first_element).chain(&except.additional_elements));
    let out: BTreeSet<String> = names.iter().filter_map(last_of).chain(except).map(|name| name.value.clone()).collect();
    let hidden = hidden.iter().filter(|name| !out.contains(*name));
    names.extend(hidden.map(|name| ObjectName::from(Ident::new(name.as_str()))));
    if !names.is_empty() {
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
    }
    options
}

struct Context<'a> {
    names: &'a Names,
    state: &'a SessionState,
    none: HashMap<String, Arc<HigherOrderUDF>>,
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match self.names.source(name.table()) {
            Some(shown) if name.schema().is_none() => Ok(Arc::clone(&shown.source)),
            _ => plan_err!("there is no source `{name}`"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.none.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<datafusion::arrow::datatypes::DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
