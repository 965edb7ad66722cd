// The SQL editor: CodeMirror in a shadow root, where its styles are adopted sheets, which the content policy allows.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, type Completion, type CompletionContext } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { bracketMatching, HighlightStyle, StreamLanguage, syntaxHighlighting, type StringStream } from '@codemirror/language';
import { setDiagnostics, type Diagnostic } from '@codemirror/lint';
import { Compartment, EditorState, Prec } from '@codemirror/state';
import { drawSelection, EditorView, highlightSpecialChars, keymap, lineNumbers, placeholder } from '@codemirror/view';
import { tags } from '@lezer/highlight';

const words = (text: string) => text.trim().split(/\s+/);
const KEYWORDS = words(`select from where group by having order limit as and or not in is null like between case when then else end distinct on using
  join left right full inner outer cross natural with union all except intersect exists over partition rows range unbounded preceding following
  current row emit changes final grace period retention tumble hop session cumulate hopping tumbling window size advance watermark within
  match_recognize descriptor table lateral unnest explode interval second seconds minute minutes hour hours day days true false for system_time of
  windowstart windowend rowtime window_start window_end cast try_cast asc desc offset fetch first next only extract at zone time`);
const TYPES = words(`int integer bigint smallint tinyint double float real decimal numeric boolean string varchar char bytes varbinary binary timestamp
  timestamp_ltz date array map struct multiset`);
const FUNCTIONS = words(`count sum avg min max latest_by_offset earliest_by_offset collect_list collect_set topk coalesce ifnull nullif abs ceil floor round
  upper lower substring trim concat length replace proctime now current_timestamp to_timestamp format_timestamp json_value row_number`);
const NAMED = new Map([...KEYWORDS.map((word) => [word, 'keyword'] as const), ...TYPES.map((word) => [word, 'typeName'] as const), ...FUNCTIONS.map((word) => [word, 'variableName.standard'] as const)]);

interface Within {
  /** What ends what has begun on a line before: a comment, a text or a quoted name. */
  until: string;
}

/** Words, texts and comments are all that colours need of SQL; its grammar is the server's business, and would be a fifth of the page. */
const language = StreamLanguage.define<Within>({
  startState: () => ({ until: '' }),
  token: (stream, state) => (state.until ? rest(stream, state) : begins(stream, state)),
  languageData: { commentTokens: { line: '--', block: { open: '/*', close: '*/' } }, closeBrackets: { brackets: ['(', '[', "'", '"', '`'] } },
});

function begins(stream: StringStream, state: Within): string | null {
  if (stream.eatSpace()) return null;
  if (stream.match('--')) {
    stream.skipToEnd();
    return 'comment';
  }
  const quote = stream.match('/*') ? '*/' : /['"`]/.test(stream.peek() ?? '') ? stream.next()! : '';
  if (quote) {
    state.until = quote;
    return rest(stream, state);
  }
  if (stream.match(/^\d+(\.\d+)?([eE][+-]?\d+)?/)) return 'number';
  const word = stream.match(/^[\p{L}_][\p{L}\d_$]*/u) as RegExpMatchArray | null;
  if (word) return NAMED.get(word[0].toLowerCase()) ?? 'variableName';
  stream.next();
  return null;
}

/** A doubled quote ends a text and begins the next one, which looks the same. */
function rest(stream: StringStream, state: Within): string {
  const kind = { '*/': 'comment', "'": 'string' }[state.until] ?? 'variableName';
  if (stream.skipTo(state.until)) {
    stream.match(state.until);
    state.until = '';
  } else stream.skipToEnd();
  return kind;
}

const colours = HighlightStyle.define([
  { tag: tags.keyword, color: 'var(--accent)', fontWeight: '550' },
  { tag: [tags.string, tags.special(tags.string)], color: 'var(--good)' },
  { tag: [tags.number, tags.bool, tags.null], color: 'var(--wait)' },
  { tag: tags.comment, color: 'var(--muted)', fontStyle: 'italic' },
  { tag: [tags.typeName, tags.standard(tags.variableName)], color: 'var(--known)' },
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
  const [known, frozen] = [new Compartment(), new Compartment()];
  let isOurs = false;
  const view = new EditorView({
    parent: root,
    root,
    state: EditorState.create({
      doc: text,
      extensions: [
        Prec.highest(keymap.of([{ key: 'Mod-Enter', run: () => (run?.(), true) }])),
        lineNumbers(), highlightSpecialChars(), history(), drawSelection(), bracketMatching(), closeBrackets(),
        language, known.of(completions([])),
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
    know: (sources) => view.dispatch({ effects: known.reconfigure(completions(sources)) }),
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

/** Columns, sources, and words of the language: people begin with SELECT, so columns are offered before FROM names their source. */
function completions(sources: Known[]) {
  const columns = new Map<string, Completion>();
  for (const source of sources) {
    for (const { name, type } of source.columns) columns.set(name, { label: name, detail: columns.has(name) ? 'several sources' : `${type} of ${source.name}`, boost: 2 });
  }
  const tables = sources.map(({ name }): Completion => ({ label: name, detail: 'source', boost: 3 }));
  const rest = [...NAMED].map(([word]): Completion => ({ label: word.toUpperCase(), boost: -1 }));
  const source = (context: CompletionContext) => {
    const word = context.matchBefore(/[\w$]+/);
    if (!word && !context.explicit) return null;
    const before = context.state.sliceDoc(Math.max(0, (word?.from ?? context.pos) - 200), word?.from ?? context.pos);
    const options = /\.\s*$/.test(before) ? [...columns.values()] : /\b(from|join)\s+$/i.test(before) ? tables : [...columns.values(), ...tables, ...rest];
    return { from: word?.from ?? context.pos, options, validFor: /^[\w$]*$/ };
  };
  return autocompletion({ icons: false, override: [source] });
}
