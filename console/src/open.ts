// Tasks that have begun and not ended, as a forest by what lies within what: nothing looks at all of them to end one.

export interface Begun {
  readonly reference: string;
  /** Index of every loop around it, the outermost first. */
  readonly iteration: readonly number[];
}

interface Node<T> {
  key: string;
  value: T;
  around: Node<T> | null;
  inside: Set<Node<T>>;
}

const keyOf = (reference: string, iteration: readonly number[]): string => `${reference} ${iteration.join(",")}`;

export class OpenTasks<T extends Begun> {
  private readonly nodes = new Map<string, Node<T>>();
  private readonly byReference = new Map<string, Set<Node<T>>>();
  /** How many loops are around the tasks of a reference. */
  private readonly loops = new Map<string, number>();

  get size(): number {
    return this.nodes.size;
  }

  /** In the order in which they began. */
  *values(): Iterable<T> {
    for (const node of this.nodes.values()) yield node.value;
  }

  get(reference: string, iteration: readonly number[]): T | undefined {
    return this.nodes.get(keyOf(reference, iteration))?.value;
  }

  /** The earliest of a reference. */
  first(reference: string): T | undefined {
    const [node] = this.byReference.get(reference) ?? [];
    return node?.value;
  }

  /** One that has begun is there; gives what it takes the place of, which the events have not ended. */
  begin(value: T): T[] {
    const { reference, iteration } = value;
    const replaced = this.end(reference, iteration);
    this.loops.set(reference, iteration.length);
    const around = this.holderOf(reference, iteration);
    const node: Node<T> = { key: keyOf(reference, iteration), value, around, inside: new Set() };
    around?.inside.add(node);
    this.nodes.set(node.key, node);
    const same = this.byReference.get(reference);
    if (same) same.add(node);
    else this.byReference.set(reference, new Set([node]));
    return replaced;
  }

  /** It is there no more, nor is what lies in it; gives all of them, itself first. */
  end(reference: string, iteration: readonly number[]): T[] {
    const node = this.nodes.get(keyOf(reference, iteration));
    if (!node) return [];
    node.around?.inside.delete(node);
    return [...this.taken(node)];
  }

  /** What lies in it is there no more; gives that. */
  endInside(reference: string, iteration: readonly number[]): T[] {
    const node = this.nodes.get(keyOf(reference, iteration));
    if (!node?.inside.size) return [];
    const found = [...node.inside].flatMap((each) => [...this.taken(each)]);
    node.inside.clear();
    return found;
  }

  /** Those in which nothing else is under way, the earliest first. */
  leaves(): T[] {
    const found: T[] = [];
    for (const node of this.nodes.values()) if (!node.inside.size) found.push(node.value);
    return found;
  }

  clear(): void {
    this.nodes.clear();
    this.byReference.clear();
  }

  private *taken(top: Node<T>): Iterable<T> {
    const pending = [top];
    for (let node = pending.pop(); node; node = pending.pop()) {
      this.nodes.delete(node.key);
      this.byReference.get(node.value.reference)?.delete(node);
      pending.push(...node.inside);
      yield node.value;
    }
  }

  /** The innermost around a place. */
  private holderOf(reference: string, iteration: readonly number[]): Node<T> | null {
    for (let end = reference.lastIndexOf("/"); end > 0; end = reference.lastIndexOf("/", end - 1)) {
      const outer = reference.slice(0, end);
      const loops = this.loops.get(outer);
      const found = loops === undefined ? undefined : this.nodes.get(keyOf(outer, iteration.slice(0, loops)));
      if (found) return found;
    }
    return null;
  }
}
