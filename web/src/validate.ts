// Whether a statement can run, asked while it is written: the answer stands before anybody presses Run.
import { useEffect, useRef, useState } from 'preact/hooks';
import { ask, Problem } from './api';
import type { Fault } from './editor';

export interface Validation {
  valid: boolean;
  errors: Fault[];
  normalized?: string;
  checkedBy: 'engine' | 'gate';
  engineTrouble?: string;
  columns?: { name: string; type: string; nullable?: boolean }[];
  changes?: 'append' | 'upsert';
  plan?: string;
}

export interface Checked {
  /** Of the text as it is now; else undefined. */
  found: Validation | undefined;
  faults: Fault[];
  checking: boolean;
  problem: Problem | null;
  now: () => Promise<Validation | null>;
}

const AFTER = 500;
const NONE: Fault[] = [];

export function useValidation(kind: 'adhoc' | 'persistent', text: string, engine: string, asks = true): Checked {
  const [state, setState] = useState<{ of: string; found?: Validation; problem: Problem | null; checking: boolean }>({ of: '', problem: null, checking: false });
  const running = useRef<AbortController | null>(null);
  const of = JSON.stringify([kind, text, engine]);
  const check = async (): Promise<Validation | null> => {
    if (state.of === of && state.found) return state.found;
    running.current?.abort();
    const abort = new AbortController();
    running.current = abort;
    setState((before) => ({ ...before, checking: true }));
    const body = { kind, sqlScript: text, ...(engine ? { engine } : {}) };
    try {
      const { data } = await ask<Validation>('/api/validate', { method: 'POST', body }, abort.signal);
      setState({ of, found: data, problem: null, checking: false });
      return data;
    } catch (error) {
      if (!abort.signal.aborted) setState({ of, problem: error instanceof Problem ? error : new Problem(0, 'unexpected', String(error), null, {}), checking: false });
      return null;
    }
  };
  useEffect(() => {
    if (!asks || text.trim() === '' || state.of === of) return undefined;
    const timer = window.setTimeout(() => void check(), AFTER);
    return () => window.clearTimeout(timer);
  }, [of, asks]);
  useEffect(() => () => running.current?.abort(), []);
  const isOf = state.of === of && text.trim() !== '';
  return { found: isOf ? state.found : undefined, faults: (isOf && state.found?.errors) || NONE, checking: state.checking, problem: isOf ? state.problem : null, now: check };
}
