package plot

import (
	"fmt"
	"image/color"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	stdfont "golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Sizes in points, but for the resolution.
const (
	pngDPI      = 144
	pageWidth   = vg.Length(720)
	pageHeight  = vg.Length(405)
	margin      = vg.Length(18)
	titleSize   = vg.Length(14)
	textSize    = vg.Length(10.5)
	smallSize   = vg.Length(9)
	lineWidth   = vg.Length(1.6)
	lineExtra   = vg.Length(1.6) // of the first of several lines: it shows beside what covers it
	gridWidth   = vg.Length(0.5)
	swatchWidth = vg.Length(18)
)

// palette is Okabe and Ito's (jfly.uni-koeln.de/color, 2008), which people with any kind of
// colour blindness can tell apart, less its yellow, which is too pale on white.
var palette = []color.NRGBA{
	{0x00, 0x72, 0xb2, 0xff}, // blue
	{0xe6, 0x9f, 0x00, 0xff}, // orange
	{0x00, 0x9e, 0x73, 0xff}, // green
	{0xd5, 0x5e, 0x00, 0xff}, // vermilion
	{0xcc, 0x79, 0xa7, 0xff}, // purple
	{0x56, 0xb4, 0xe9, 0xff}, // sky
	{0x4d, 0x4d, 0x4d, 0xff}, // dark grey
}

var (
	ink      = color.NRGBA{0x26, 0x26, 0x26, 0xff}
	softInk  = color.NRGBA{0x59, 0x59, 0x59, 0xff}
	gridInk  = color.NRGBA{0xe4, 0xe4, 0xe4, 0xff}
	frameInk = color.NRGBA{0x9a, 0x9a, 0x9a, 0xff}
	otherInk = color.NRGBA{0xb8, 0xb8, 0xb8, 0xff} // groups beyond the palette
	paper    = color.NRGBA{0xff, 0xff, 0xff, 0xff}
)

// dashes tell series apart that share a colour.
var dashes = [][]vg.Length{nil, {5, 3}, {1.5, 2.5}, {8, 3, 1.5, 3}}

// stroke is the line of the i-th of n series. Each is a little thinner than the one that it
// may cover, so that lines that run together are all seen.
func stroke(i, n int) draw.LineStyle {
	width := lineWidth + lineExtra*vg.Length(n-1-i)/vg.Length(max(n, 4))
	return draw.LineStyle{Color: palette[i%len(palette)], Width: width, Dashes: dashes[i/len(palette)%len(dashes)]}
}

// pale is a colour seen through: for bands.
func pale(c color.NRGBA, alpha uint8) color.NRGBA { c.A = alpha; return c }

var fonts = loadFonts()

const typeface = "Liberation"

func loadFonts() *font.Cache {
	var faces font.Collection
	for _, f := range []struct {
		weight stdfont.Weight
		ttf    []byte
	}{{stdfont.WeightNormal, liberationsansregular.TTF}, {stdfont.WeightBold, liberationsansbold.TTF}} {
		face, err := opentype.Parse(f.ttf)
		if err != nil {
			panic(fmt.Sprintf("plot: an embedded font does not parse: %v", err))
		}
		faces = append(faces, font.Face{Font: font.Font{Typeface: typeface, Variant: "Sans", Weight: f.weight}, Face: face})
	}
	return font.NewCache(faces)
}

// write is the style of text: aligned about its point, horizontally ax (0 left, -0.5 centre,
// -1 right) and vertically ay (0 above, -0.5 middle, -1 below).
func write(size vg.Length, c color.Color, ax, ay float64) text.Style {
	return text.Style{Color: c, XAlign: text.XAlignment(ax), YAlign: text.YAlignment(ay), Handler: text.Plain{Fonts: fonts},
		Font: font.Font{Typeface: typeface, Variant: "Sans", Size: size}}
}

func boldly(s text.Style) text.Style {
	s.Font.Weight = stdfont.WeightBold
	return s
}
