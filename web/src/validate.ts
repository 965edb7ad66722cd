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
  /** What is found of the text as it is now; null if nobody could say, undefined if the text or the page was left meanwhile. */
  now: () => Promise<Validation | null | undefined>;
}

const AFTER = 500;
const NONE: Fault[] = [];

export function useValidation(kind: 'adhoc' | 'persistent', text: string, engine: string, asks = true): Checked {
  const [state, setState] = useState<{ of: string; found?: Validation; problem: Problem | null; checking: boolean }>({ of: '', problem: null, checking: false });
  const running = useRef<{ of: string; abort: AbortController; answer: Promise<Validation | null | undefined> } | null>(null);
  const of = JSON.stringify([kind, text, engine]);
  const question = async (abort: AbortController) => {
    const body = { kind, sqlScript: text, ...(engine ? { engine } : {}) };
    try {
      const { data } = await ask<Validation>('/api/validate', { method: 'POST', body }, abort.signal);
      setState({ of, found: data, problem: null, checking: false });
      return data;
    } catch (error) {
      if (abort.signal.aborted) return undefined;
      setState({ of, problem: error instanceof Problem ? error : new Problem(0, 'unexpected', String(error), null, {}), checking: false });
      return null;
    } finally {
      if (running.current?.abort === abort) running.current = null;
    }
  };
  const check = (): Promise<Validation | null | undefined> => {
    if (state.of === of && state.found) return Promise.resolve(state.found);
    // Whoever presses Run soon after the last key asks what is asked by itself a moment later.
    if (running.current?.of === of) return running.current.answer;
    running.current?.abort.abort();
    const abort = new AbortController();
    setState((before) => ({ ...before, checking: true }));
    const answer = question(abort);
    running.current = { of, abort, answer };
    return answer;
  };
  useEffect(() => {
    if (!asks || text.trim() === '' || state.of === of) return undefined;
    const timer = window.setTimeout(() => void check(), AFTER);
    return () => window.clearTimeout(timer);
  }, [of, asks]);
  useEffect(() => () => running.current?.abort.abort(), []);
  const isOf = state.of === of && text.trim() !== '';
  return { found: isOf ? state.found : undefined, faults: (isOf && state.found?.errors) || NONE, checking: state.checking, problem: isOf ? state.problem : null, now: check };
}
