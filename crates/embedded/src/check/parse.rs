//! From text to DataFusion's logical plan, over the sources of this SELECT only. Functions are DataFusion's scalar and aggregate
//! functions and ours; there are no table functions, no variables, no catalogue beside ours.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::{Result, TableReference, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectName, Query, Select as Body, SelectItem, Statement as Ast, TableFactor,
    Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use streamview_manager::catalog::DataType;
use streamview_manager::engines::Select;

use super::Fault;
use super::errors;
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
    sources: Vec<(String, Arc<dyn TableSource>)>,
    /// The names of all sources, columns and fields.
    columns: BTreeSet<String>,
}

impl Names {
    pub(crate) fn new(select: &Select) -> Names {
        let mentions = |word: &str| super::fault::place_of(&select.sql, word).is_some();
        let shows_hidden = HIDDEN.iter().any(|name| mentions(name));
        let source = |(number, source): (usize, &streamview_manager::catalog::Source)| {
            let own = schema::of_table(source);
            let is_table = source.table.is_some();
            let schema = if is_table || !shows_hidden { own } else { schema::of_source(source) };
            let input = if is_table { Input::Table(number) } else { Input::Stream(number) };
            (source.name.clone(), provider_as_source(Arc::new(Provider { input, schema })))
        };
        let mut columns = BTreeSet::from(HIDDEN.map(str::to_owned));
        for source in &select.sources {
            columns.insert(source.name.clone());
            for column in &source.columns {
                columns.insert(column.name.clone());
                fields_of(&column.data_type, &mut columns);
            }
        }
        Names { sources: select.sources.iter().enumerate().map(source).collect(), columns }
    }

    fn source(&self, name: &str) -> Option<&Arc<dyn TableSource>> {
        let exact = self.sources.iter().find(|(other, _)| other == name);
        let like = || self.sources.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        exact.or_else(like).map(|(_, source)| source)
    }

    pub(crate) fn plan(&self, mut statement: Ast, state: &SessionState) -> Result<LogicalPlan> {
        let mut given = Given { names: self.columns.clone() };
        let walked = Visit::visit(&statement, &mut given);
        let mut meant = AsMeant { names: self, known: given.names };
        if walked.is_break() {
            return plan_err!("the statement could not be read");
        }
        if VisitMut::visit(&mut statement, &mut meant).is_break() {
            return plan_err!("the statement could not be read");
        }
        let context = Context { names: self, state, none: HashMap::new() };
        let parser = &state.config().options().sql_parser;
        let options = ParserOptions { collect_spans: true, ..ParserOptions::from(parser) };
        SqlToRel::new_with_options(&context, options).sql_statement_to_plan(statement)
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

/// The names that a statement gives itself.
struct Given {
    names: BTreeSet<String>,
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
}

impl AsMeant<'_> {
    fn hides(&self, factor: &TableFactor) -> bool {
        let TableFactor::Table { name, .. } = factor else { return false };
        let Some(last) = name.0.last().and_then(|part| part.as_ident()) else { return false };
        let source = self.names.source(&last.value);
        source.is_some_and(|source| source.schema().field_with_name(HIDDEN[0]).is_ok())
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
        let mut reads = select
            .from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
        let hides = reads.any(|factor| self.hides(factor));
        for item in &mut select.projection {
            match item {
                SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) if hides => exclude(options),
                _ => {}
            }
        }
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

fn exclude(options: &mut WildcardAdditionalOptions) {
    let names = HIDDEN.iter().map(|name| ObjectName::from(Ident::new(*name))).collect();
    options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
}

struct Context<'a> {
    names: &'a Names,
    state: &'a SessionState,
    none: HashMap<String, Arc<HigherOrderUDF>>,
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match self.names.source(name.table()) {
            Some(source) if name.schema().is_none() => Ok(Arc::clone(source)),
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
