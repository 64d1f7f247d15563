const DIGITS = /^[0-9]+$/;

/** Reads single headers of a message. Names match in any case; the first value counts. */
export abstract class HeaderReader {
  abstract readonly headers: Readonly<Record<string, readonly string[]>> | undefined;

  /** @internal */
  protected textHeader(name: string): string | undefined {
    for (const [spelled, values] of Object.entries(this.headers ?? {})) {
      if (values[0] !== undefined && spelled.toLowerCase() === name) return values[0];
    }
    return undefined;
  }

  /** @internal */
  protected integerHeader(name: string): bigint | undefined {
    const value = this.textHeader(name);
    return value !== undefined && DIGITS.test(value) ? BigInt(value) : undefined;
  }

  /** @internal */
  protected commaSeparatedHeader(name: string): readonly string[] | undefined {
    return this.textHeader(name)
      ?.split(",")
      .map((item) => item.trim())
      .filter((item) => item !== "");
  }
}
