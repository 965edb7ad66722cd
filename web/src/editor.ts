// The SQL editor: CodeMirror in a shadow root, where its styles are adopted sheets, which the content policy allows.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, type Completion, type CompletionContext } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { sql, SQLDialect } from '@codemirror/lang-sql';
import { bracketMatching, HighlightStyle, syntaxHighlighting } from '@codemirror/language';
import { setDiagnostics, type Diagnostic } from '@codemirror/lint';
import { Compartment, EditorState, Prec } from '@codemirror/state';
import { drawSelection, EditorView, highlightSpecialChars, keymap, lineNumbers, placeholder } from '@codemirror/view';
import { tags } from '@lezer/highlight';

const dialect = SQLDialect.define({
  keywords: `select from where group by having order limit as and or not in is null like between case when then else end distinct on using
    join left right full inner outer cross natural with union all except intersect exists over partition rows range unbounded preceding following
    current row emit changes final grace period retention tumble hop session cumulate hopping tumbling window size advance watermark within
    match_recognize descriptor table lateral unnest explode interval second seconds minute minutes hour hours day days true false for system_time of
    windowstart windowend rowtime window_start window_end cast try_cast asc desc offset fetch first next only extract at zone time`,
  types: `int integer bigint smallint tinyint double float real decimal numeric boolean string varchar char bytes varbinary binary timestamp
    timestamp_ltz date array map struct row multiset`,
  builtin: `count sum avg min max latest_by_offset earliest_by_offset collect_list collect_set topk coalesce ifnull nullif abs ceil floor round
    upper lower substring trim concat length replace proctime now current_timestamp to_timestamp format_timestamp json_value row_number`,
  identifierQuotes: '`"',
  doubleQuotedStrings: false,
});

const colours = HighlightStyle.define([
  { tag: tags.keyword, color: 'var(--accent)', fontWeight: '550' },
  { tag: [tags.string, tags.special(tags.string)], color: 'var(--good)' },
  { tag: [tags.number, tags.bool, tags.null], color: 'var(--wait)' },
  { tag: tags.comment, color: 'var(--muted)', fontStyle: 'italic' },
  { tag: [tags.typeName, tags.standard(tags.name)], color: 'var(--bad)' },
]);

const look = EditorView.theme({
  '&': { color: 'var(--text)', backgroundColor: 'var(--panel)', fontSize: '13px', borderRadius: '8px', minHeight: '7rem', maxHeight: '22rem' },
  '&.cm-focused': { outline: '2px solid var(--accent)', outlineOffset: '1px' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.55', overflow: 'auto' },
  '.cm-content': { padding: '8px 0', caretColor: 'var(--text)', minHeight: '7rem' },
  '.cm-gutters': { backgroundColor: 'transparent', color: 'var(--muted)', border: 'none', paddingLeft: '4px' },
  '.cm-cursor': { borderLeftColor: 'var(--text)' },
  '.cm-placeholder': { color: 'var(--muted)' },
  '.cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground': { backgroundColor: 'var(--selection)' },
  '.cm-matchingBracket, &.cm-focused .cm-matchingBracket': { backgroundColor: 'var(--accent-soft)', outline: '1px solid var(--edge)' },
  '.cm-tooltip': { backgroundColor: 'var(--panel)', color: 'var(--text)', border: '1px solid var(--edge)', borderRadius: '6px' },
  '.cm-tooltip.cm-tooltip-autocomplete > ul': { fontFamily: 'var(--mono)', maxHeight: '14rem' },
  '.cm-tooltip-autocomplete > ul > li[aria-selected]': { backgroundColor: 'var(--accent)', color: 'var(--on-accent)' },
  '.cm-completionDetail': { color: 'var(--muted)', fontStyle: 'normal', marginLeft: '1em' },
  '.cm-tooltip-autocomplete > ul > li[aria-selected] .cm-completionDetail': { color: 'inherit' },
  '.cm-completionMatchedText': { textDecoration: 'none', fontWeight: '650' },
  '.cm-diagnostic': { borderLeft: '4px solid var(--bad)', padding: '4px 10px' },
  '.cm-lintRange-error': { backgroundImage: 'none', textDecoration: 'underline wavy var(--bad)', textUnderlineOffset: '3px' },
});

/** What can be selected from. */
export interface Known {
  name: string;
  columns: { name: string; type: string }[];
}

/** What is wrong, and where: line and column from 1. */
export interface Fault {
  code: string;
  message: string;
  line: number | null;
  column: number | null;
}

export interface Editor {
  text: () => string;
  set: (text: string) => void;
  know: (sources: Known[]) => void;
  mark: (faults: Fault[]) => void;
  freeze: (frozen: boolean) => void;
  goTo: (line: number, column: number) => void;
  focus: () => void;
  close: () => void;
}

interface Options {
  text: string;
  label: string;
  hint: string;
  changed: (text: string) => void;
  run?: () => void;
}

export function editor(host: HTMLElement, { text, label, hint, changed, run }: Options): Editor {
  const root = host.shadowRoot ?? host.attachShadow({ mode: 'open' });
  const [language, frozen] = [new Compartment(), new Compartment()];
  let isOurs = false;
  const view = new EditorView({
    parent: root,
    root,
    state: EditorState.create({
      doc: text,
      extensions: [
        Prec.highest(keymap.of([{ key: 'Mod-Enter', run: () => (run?.(), true) }])),
        lineNumbers(), highlightSpecialChars(), history(), drawSelection(), bracketMatching(), closeBrackets(),
        autocompletion({ icons: false }),
        language.of(languageOf([])),
        frozen.of([]),
        syntaxHighlighting(colours), look, EditorView.lineWrapping, placeholder(hint),
        EditorView.contentAttributes.of({ 'aria-label': label }),
        EditorView.updateListener.of((update) => update.docChanged && !isOurs && changed(update.state.doc.toString())),
        // Tab is not among them: it leaves the editor.
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...historyKeymap, ...defaultKeymap]),
      ],
    }),
  });
  const place = (line: number, column: number) => {
    const found = view.state.doc.line(Math.min(Math.max(line, 1), view.state.doc.lines));
    return Math.min(found.from + Math.max(column, 1) - 1, found.to);
  };
  return {
    text: () => view.state.doc.toString(),
    set: (text) => {
      if (text === view.state.doc.toString()) return;
      isOurs = true;
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } });
      isOurs = false;
    },
    know: (sources) => view.dispatch({ effects: language.reconfigure(languageOf(sources)) }),
    mark: (faults) => view.dispatch(setDiagnostics(view.state, faults.filter((fault) => fault.line !== null).map((fault): Diagnostic => {
      const from = place(fault.line!, fault.column ?? 1);
      const word = /^[\w`"]+/.exec(view.state.doc.sliceString(from, from + 80))?.[0].length ?? 1;
      return { from, to: Math.min(from + word, view.state.doc.length), severity: 'error', message: fault.message };
    }))),
    freeze: (isFrozen) => view.dispatch({ effects: frozen.reconfigure(isFrozen ? [EditorState.readOnly.of(true), EditorView.editable.of(false)] : []) }),
    goTo: (line, column) => {
      view.dispatch({ selection: { anchor: place(line, column) }, scrollIntoView: true });
      view.focus();
    },
    focus: () => view.focus(),
    close: () => view.destroy(),
  };
}

function languageOf(sources: Known[]) {
  const schema = Object.fromEntries(sources.map(({ name, columns }) => [name, columns.map(({ name, type }): Completion => ({ label: name, detail: type, type: 'property' }))]));
  // The language offers columns only behind FROM; people begin with SELECT.
  const columns = new Map<string, Completion>();
  for (const source of sources) {
    for (const { name, type } of source.columns) columns.set(name, { label: name, detail: columns.has(name) ? 'several sources' : `${type} of ${source.name}`, type: 'property' });
  }
  const every = (context: CompletionContext) => {
    const word = context.matchBefore(/\w+/);
    return word || context.explicit ? { from: word?.from ?? context.pos, options: [...columns.values()], validFor: /^\w*$/ } : null;
  };
  return [sql({ dialect, schema, upperCaseKeywords: true }), dialect.language.data.of({ autocomplete: every })];
}
