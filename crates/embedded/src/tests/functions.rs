//! The manager's gate lets through the functions that are here, and no others.

use std::collections::BTreeSet;

use crate::plan::session;

/// What the gate reads; as text, for it is the gate's.
const LISTED: &str = include_str!("../../../manager/src/gate/functions/embedded.txt");

/// What DataFusion brings and the gate refuses, and why.
const REFUSED: &[(&str, &str)] = &[
    (
        "it makes a text or an array as long as one likes, which no bound of a query counts",
        "array_repeat array_resize generate_series list_repeat list_resize lpad range repeat rpad",
    ),
    (
        "another name of one that is listed",
        "array_cat array_push_back array_push_front list_any_value list_append list_cat list_concat list_contains list_distinct list_element list_empty list_except list_extract list_has list_has_all list_has_any list_indexof list_intersect list_join list_length list_max list_ndims list_pop_back list_pop_front list_position list_positions list_prepend list_push_back list_push_front list_remove list_remove_all list_reverse list_slice list_sort list_to_string list_union make_list quantile_cont rand string_to_list",
    ),
    (
        "it is of DataFusion's insides: its types, its files, its version",
        "arrow_cast arrow_field arrow_metadata arrow_try_cast arrow_typeof cast_to_type file_row_index input_file_name try_cast_to_type union_extract union_tag version with_metadata",
    ),
    ("it says something of GROUPING SETS, which are not offered", "grouping"),
    ("its keys may be of any type, and the catalogue's maps have texts", "map"),
    (
        "nobody has held it beside the answers of PostgreSQL yet",
        "approx_percentile_cont_with_weight array_add array_avg array_compact array_dims array_distance array_normalize array_product array_remove_n array_replace array_replace_all array_replace_n array_scale array_subtract array_sum arrays_overlap arrays_zip cosine_distance dot_product inner_product list_add list_avg list_compact list_dims list_distance list_normalize list_product list_remove_n list_replace list_replace_all list_replace_n list_scale list_subtract list_sum list_zip",
    ),
];

#[test]
fn the_list_of_functions_is_what_is_there() {
    let state = session::state(false).unwrap();
    let own = |name: &String| name.ends_with("_for_tests");
    let there: BTreeSet<String> = state
        .scalar_functions()
        .keys()
        .chain(state.aggregate_functions().keys())
        .filter(|name| !own(name))
        .map(|name| name.to_uppercase())
        .collect();
    let listed: BTreeSet<String> = LISTED.lines().map(str::to_owned).collect();
    assert_eq!(LISTED.lines().collect::<Vec<_>>(), listed.iter().map(String::as_str).collect::<Vec<_>>(), "in order");
    let refused: BTreeSet<String> =
        REFUSED.iter().flat_map(|(_, names)| names.split(' ')).map(str::to_uppercase).collect();
    let unknown: Vec<_> = listed.difference(&there).collect();
    assert!(unknown.is_empty(), "the gate lets through what is not there: {unknown:?}");
    let unsaid: Vec<_> = there.difference(&listed).filter(|name| !refused.contains(*name)).collect();
    assert!(unsaid.is_empty(), "neither listed nor refused with a reason: {unsaid:?}");
    let both: Vec<_> = refused.intersection(&listed).collect();
    assert!(both.is_empty(), "listed and refused: {both:?}");
    let gone: Vec<_> = refused.difference(&there).collect();
    assert!(gone.is_empty(), "refused, and not there: {gone:?}");
}
