// What a person has chosen for this browser, and values that outlive a reload of the tab.
import { effect, signal, type Signal } from '@preact/signals';

/** A choice that this browser keeps. */
export function kept(name: string, otherwise: string, store: Storage | undefined = storage()): Signal<string> {
  const value = signal(store?.getItem(`streamview.${name}`) ?? otherwise);
  effect(() => {
    const now = value.value;
    if (now === otherwise) store?.removeItem(`streamview.${name}`);
    else store?.setItem(`streamview.${name}`, now);
  });
  return value;
}

function storage(): Storage | undefined {
  try {
    return window.localStorage;
  } catch {
    return undefined; // a browser that keeps nothing
  }
}
